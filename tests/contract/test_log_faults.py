"""The log whose calls fail as a test says."""

from __future__ import annotations

from pathlib import Path

import pytest
from contract.log_adapters import WAIT_S, at

from clicktide.errors import LogUnavailable
from clicktide.log.embedded import EmbeddedLog
from clicktide.log.faults import CALLS, FaultyLog
from clicktide.log.port import LogAdmin, LogConsumer, LogProducer, Outgoing


def opened(folder: Path) -> FaultyLog:
    log = FaultyLog(EmbeddedLog(folder / "log.db", 1 << 30))
    log.admin().create_topics({"t": 1})
    return log


def test_a_failure_before_the_work_leaves_nothing(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.fail_next("send", LogUnavailable("scripted"))
    with pytest.raises(LogUnavailable, match="scripted"):
        log.producer().send([Outgoing("t", None, b"x")], WAIT_S)
    assert log.admin().bounds([at("t")]) == {at("t"): (0, 0)}


def test_a_failure_after_the_work_is_a_lost_answer(tmp_path: Path) -> None:
    log = opened(tmp_path)
    producer = log.producer()
    log.fail_next("send", LogUnavailable("lost"), after_write=True)
    with pytest.raises(LogUnavailable, match="lost"):
        producer.send([Outgoing("t", None, b"x")], WAIT_S)
    assert log.admin().bounds([at("t")]) == {at("t"): (0, 1)}
    assert producer.send([Outgoing("t", None, b"x")], WAIT_S) == [(0, 1)]


def test_failures_come_in_the_order_given_and_heal(tmp_path: Path) -> None:
    log = opened(tmp_path)
    consumer = log.consumer("g")
    log.fail_next("commit", LogUnavailable("one"))
    log.fail_next("commit", LogUnavailable("two"), times=2)
    for word in ("one", "two"):
        with pytest.raises(LogUnavailable, match=word):
            consumer.commit({at("t"): 1})
    log.heal()
    consumer.commit({at("t"): 1})
    assert log.calls["commit"] == 3
    assert consumer.committed([at("t")]) == {at("t"): 1}


def test_an_unknown_call_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sned"):
        opened(tmp_path).fail_next("sned", LogUnavailable("x"))


def test_every_call_of_the_port_can_be_scripted() -> None:
    names = {
        name
        for port in (LogConsumer, LogProducer, LogAdmin)
        for name in vars(port)
        if not name.startswith("_")
    }
    assert names - {"close"} == CALLS
