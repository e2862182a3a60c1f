"""Contract of the log port: what the administration promises, over every adapter."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from contract.log_adapters import ADAPTERS, WAIT_S, Case, at, open_case, read, values

from clicktide.errors import LogError, UnknownTopic
from clicktide.log.port import Log, Outgoing


@pytest.fixture(params=ADAPTERS)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    yield from open_case(request.param, tmp_path)


def test_is_a_log(case: Case) -> None:
    assert isinstance(case.log, Log)


def test_makes_topics_once(case: Case) -> None:
    topic = case.topic(3)
    made = case.admin.topics()[topic]
    assert (made.name, made.partitions) == (topic, 3)
    assert re.fullmatch(r"[0-9a-f]{32}", made.id)
    case.write(topic, b"x")
    case.admin.create_topics({topic: 5})
    assert case.admin.topics()[topic] == made
    assert case.consumer().topics()[topic] == made
    assert case.admin.bounds([at(topic)]) == {at(topic): (0, 1)}


def test_a_topic_made_anew_has_another_id_and_nothing_in_it(case: Case) -> None:
    topic = case.topic(1)
    case.write(topic, b"x")
    consumer = case.consumer()
    consumer.commit({at(topic): 1})
    first = case.admin.topics()[topic]
    case.admin.delete_topics([topic])
    assert topic not in case.admin.topics()
    case.admin.create_topics({topic: 2})
    second = case.admin.topics()[topic]
    assert second.id != first.id
    assert case.admin.bounds([at(topic)]) == {at(topic): (0, 0)}


def test_deleting_what_is_not_there_is_no_error(case: Case) -> None:
    case.admin.delete_topics([case.prefix + "no"])
    case.admin.delete_topics([])


@pytest.mark.parametrize(("name", "partitions"), [("bad name", 1), ("", 1), ("good", 0)])
def test_a_topic_that_cannot_be_is_refused(case: Case, name: str, partitions: int) -> None:
    with pytest.raises(LogError):
        case.admin.create_topics({name: partitions})


def test_grows_a_topic(case: Case) -> None:
    topic = case.topic(1)
    case.admin.add_partitions(topic, 3)
    assert case.admin.topics()[topic].partitions == 3
    case.admin.add_partitions(topic, 3)
    assert case.admin.topics()[topic].partitions == 3
    with pytest.raises(LogError, match="3 partitions"):
        case.admin.add_partitions(topic, 2)
    with pytest.raises(UnknownTopic):
        case.admin.add_partitions(case.prefix + "no", 2)


def test_deletes_records_up_to_an_offset(case: Case) -> None:
    topic = case.topic(2)
    for partition in (0, 1):
        case.write(topic, *[b"%d" % i for i in range(10)], partition=partition)
    case.admin.delete_records({at(topic, 0): 4})
    assert case.admin.bounds([at(topic, 0), at(topic, 1)]) == {at(topic, 0): (4, 10), at(topic, 1): (0, 10)}
    case.admin.delete_records({at(topic, 0): 2})
    assert case.admin.bounds([at(topic, 0)]) == {at(topic, 0): (4, 10)}
    consumer = case.consumer()
    consumer.assign({at(topic, 0): 4})
    assert values(read(consumer, 6)) == [b"%d" % i for i in range(4, 10)]


def test_deleting_past_the_end_deletes_all_and_keeps_the_offsets(case: Case) -> None:
    topic = case.topic()
    case.write(topic, *[b"x"] * 5)
    case.admin.delete_records({at(topic): 99})
    assert case.admin.bounds([at(topic)]) == {at(topic): (5, 5)}
    assert case.producer.send([Outgoing(topic, None, b"y", partition=0)], WAIT_S)[0].offset == 5
