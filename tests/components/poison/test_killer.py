"""A record that kills whoever parses it, in the real topology on localstorm: it alone ends in `dead`, all others are stored."""

from __future__ import annotations

import itertools
import threading
import time
from pathlib import Path

import pytest
from filled_stores import Stores
from poison_project import MARK, project
from redis_server import redis_server
from unit.core.making import raw

from clicktide import topics
from clicktide.log.port import Outgoing, Record, TopicPartition
from localstorm.testing import run_topology

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(240)]

POISON = MARK + b"\xff, and not even UTF-8"


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


class Feeder(threading.Thread):
    """Writes good events to partition 1, ten a second, until it is told to stop: others that get through."""

    def __init__(self, stores: Stores) -> None:
        super().__init__(daemon=True)
        self.stores, self.ended, self.sent = stores, threading.Event(), []

    def run(self) -> None:
        for i in itertools.count():
            if self.ended.wait(0.1):
                return
            self.sent.append(f"fed-{i}")
            self.stores.send([good(self.stores, f"fed-{i}", 1)])


def good(stores: Stores, event_id: str, partition: int) -> Outgoing:
    now = int(time.time() * 1000)
    value = raw(event_id, user_id=f"u-{event_id}", occurred_at=now)
    return Outgoing(stores.topic(topics.EVENTS), b"u", value, (), partition)


def dead(stores: Stores) -> list[Record]:
    consumer = stores.log.consumer("test")
    consumer.assign({TopicPartition(stores.topic(topics.DEAD), p): 0 for p in range(2)})
    found = []
    for batch in consumer.poll(100, 0.1):
        for i, value in enumerate(batch.values):
            headers = batch.headers[i] if batch.headers else ()
            found.append(Record(batch.topic, batch.partition, batch.offsets[i], 0, None, value, headers))
    consumer.close()
    return found


def stored(stores: Stores) -> list[str]:
    return [e for i in range(2) for (e,) in stores.sql.scan_events(i, ("event_id",))]


@pytest.mark.parametrize("worker", [False, True], ids=["its bolt", "its worker"])
def test_a_record_that_kills_is_dead_and_it_alone(tmp_path: Path, redis_url: str, worker: bool) -> None:
    stores = Stores(tmp_path, redis_url, **{"redis.namespace": f"w{worker}"})
    # No more than a slice has pieces: with more there is another level of them, for which the worker dies once more.
    expected = [f"e{i}" for i in range(24)]
    records = [good(stores, e, 0) for e in expected]
    records.insert(17, Outgoing(stores.topic(topics.EVENTS), b"u", POISON, (), 0))
    stores.send(records)
    feeder = Feeder(stores)
    feeder.start()

    def done(_snapshot) -> bool:
        if not feeder.ended.is_set():
            if dead(stores):
                feeder.ended.set()
            return False
        return len(set(stored(stores))) >= len(expected) + len(feeder.sent)

    options = {f"tide.{k}": stores.settings[k] for k in stores.settings if stores.settings[k] != ""}
    options |= {"tide.commit.delay_s": 0.5, "tide.retry.poison_fails": 2}
    options |= {"test.worker": worker, "test.pids": str(tmp_path / "logs" / "pids")}
    ships = {k for k in options if k.startswith(("tide.retry.dead", "tide.retry.classes"))}
    options = {k: v for k, v in options.items() if k not in ships}
    result = run_topology(
        project(tmp_path / "project"),
        "events",
        env="embedded",
        log_dir=tmp_path / "logs",
        options=options,
        until=done,
        timeout=200,
        drain=5,
    )
    assert result.restarts("parse") >= 1 + 1 + 2
    assert (result.restarts("spout") > 0) == worker
    letters = dead(stores)
    assert {letter.value for letter in letters} == {POISON}, "byte for byte"
    headers = dict(letters[0].headers)
    assert headers[topics.STAGE] == b"poison"
    assert headers[topics.ERROR_CODE] == (b"kills_worker" if worker else b"poison")
    assert headers[topics.ORIGIN] == f"{stores.topic(topics.EVENTS)}:0:17".encode()
    assert sorted(stored(stores)) == sorted([*expected, *feeder.sent]), "each once"
    stores.close()
