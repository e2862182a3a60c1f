"""Contract of the log port: what producers promise, over every adapter."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from contract.log_adapters import ADAPTERS, WAIT_S, Case, at, open_case, read, values

from clicktide.errors import RecordTooLarge, UnknownTopic
from clicktide.log.limits import MAX_RECORD_BYTES
from clicktide.log.port import Outgoing, Placed
from clicktide.shards import partition_of


@pytest.fixture(params=ADAPTERS)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    yield from open_case(request.param, tmp_path)


def test_answers_where_each_record_went(case: Case) -> None:
    topic = case.topic(2)
    records = [Outgoing(topic, b"k", b"%d" % i, partition=i % 2) for i in range(6)]
    assert case.producer.send(records, WAIT_S) == [Placed(i % 2, i // 2) for i in range(6)]
    assert case.producer.send(records[:1], WAIT_S) == [Placed(0, 3)]


def test_keeps_every_part_of_a_record(case: Case) -> None:
    topic = case.topic()
    headers = (("a", b"1"), ("a", b"\xff\x00"), ("ü", b""))
    case.producer.send([Outgoing(topic, b"\x00k", b"\xffv", headers, 0, 1_234_567_890_123)], WAIT_S)
    consumer = case.consumer()
    consumer.assign({at(topic): 0})
    (record,) = read(consumer, 1)
    assert record == (topic, 0, 0, 1_234_567_890_123, b"\x00k", b"\xffv", headers)


def test_no_key_and_an_empty_key_are_different(case: Case) -> None:
    topic = case.topic()
    records = [Outgoing(topic, None, b"none", partition=0), Outgoing(topic, b"", b"", partition=0)]
    case.producer.send(records, WAIT_S)
    consumer = case.consumer()
    consumer.assign({at(topic): 0})
    assert [(r.key, r.value) for r in read(consumer, 2)] == [(None, b"none"), (b"", b"")]


def test_batches_have_headers_only_where_a_record_has_some(case: Case) -> None:
    topic = case.topic()
    case.write(topic, b"plain")
    consumer = case.consumer()
    consumer.assign({at(topic): 0})
    (batch,) = _first(consumer)
    assert batch.headers is None
    case.producer.send(
        [Outgoing(topic, None, b"x", (("h", b"1"),), 0), Outgoing(topic, None, b"y", (), 0)], WAIT_S
    )
    assert [r.headers for r in read(consumer, 2)] == [(("h", b"1"),), ()]


def _first(consumer: object) -> list:  # type: ignore[type-arg]
    deadline = time.monotonic() + WAIT_S
    while not (batches := consumer.poll(10, 0.2)):  # type: ignore[attr-defined]
        assert time.monotonic() < deadline
    return batches


def test_a_record_without_a_timestamp_gets_the_time_of_its_writing(case: Case) -> None:
    topic = case.topic()
    before = time.time_ns() // 1_000_000
    case.write(topic, b"x")
    after = time.time_ns() // 1_000_000
    consumer = case.consumer()
    consumer.assign({at(topic): 0})
    assert before - 1 <= read(consumer, 1)[0].timestamp <= after + 1


def test_partitions_by_murmur2_of_the_key(case: Case) -> None:
    topic = case.topic(8)
    keys = [b"%d" % i for i in range(40)] + [b"", b"\xff" * 7]
    placed = case.producer.send([Outgoing(topic, key, b"v") for key in keys], WAIT_S)
    assert [p.partition for p in placed] == [partition_of(key, 8) for key in keys]


def test_a_record_without_a_key_goes_to_some_partition(case: Case) -> None:
    topic = case.topic(3)
    placed = [case.producer.send([Outgoing(topic, None, b"v")], WAIT_S)[0] for _ in range(6)]
    assert {p.partition for p in placed} <= {0, 1, 2}
    ends = [case.admin.bounds([at(topic, i)])[at(topic, i)][1] for i in range(3)]
    assert sum(ends) == 6


def test_keeps_the_order_of_a_partition(case: Case) -> None:
    topic = case.topic()
    sent = [b"%d" % i for i in range(300)]
    for start in range(0, 300, 60):
        case.write(topic, *sent[start : start + 60])
    consumer = case.consumer()
    consumer.assign({at(topic): 0})
    assert values(read(consumer, 300, max_records=70)) == sent


def test_sending_nothing_answers_nothing(case: Case) -> None:
    assert case.producer.send([], WAIT_S) == []


def test_an_unknown_topic_is_refused_and_nothing_is_written(case: Case) -> None:
    topic = case.topic()
    records = [Outgoing(topic, b"k", b"v"), Outgoing(case.prefix + "no", b"k", b"v")]
    started = time.monotonic()
    with pytest.raises(UnknownTopic, match=f"{case.prefix}no"):
        case.producer.send(records, WAIT_S)
    assert time.monotonic() - started < WAIT_S / 2
    assert case.admin.bounds([at(topic)]) == {at(topic): (0, 0)}


def test_an_unknown_partition_is_refused(case: Case) -> None:
    topic = case.topic(2)
    with pytest.raises(UnknownTopic, match="2"):
        case.producer.send([Outgoing(topic, b"k", b"v", partition=2)], WAIT_S)


def test_a_record_too_large_is_refused_and_nothing_is_written(case: Case) -> None:
    topic = case.topic()
    with pytest.raises(RecordTooLarge, match=str(MAX_RECORD_BYTES)):
        case.producer.send(
            [Outgoing(topic, b"k", b"v"), Outgoing(topic, b"k", bytes(MAX_RECORD_BYTES))], WAIT_S
        )
    assert case.admin.bounds([at(topic)]) == {at(topic): (0, 0)}


def test_the_largest_record_passes(case: Case) -> None:
    topic = case.topic()
    value = bytes(range(256)) * (MAX_RECORD_BYTES // 256)
    case.write(topic, value, b"after")
    consumer = case.consumer()
    consumer.assign({at(topic): 0})
    assert values(read(consumer, 2)) == [value, b"after"]


def test_several_threads_may_send_through_one_producer(case: Case) -> None:
    topic = case.topic(2)
    producer = case.producer
    placed: dict[int, list[Placed]] = {n: [] for n in range(6)}

    def work(n: int) -> None:
        for i in range(15):
            placed[n] += producer.send([Outgoing(topic, None, b"%d:%d" % (n, i), partition=n % 2)], WAIT_S)

    threads = [threading.Thread(target=work, args=(n,)) for n in placed]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    consumer = case.consumer()
    consumer.assign({at(topic, 0): 0, at(topic, 1): 0})
    found = {(r.partition, r.offset): r.value for r in read(consumer, 90)}
    assert sorted(found) == [(p, i) for p in (0, 1) for i in range(45)]
    for n, places in placed.items():
        assert [p.offset for p in places] == sorted(p.offset for p in places)
        assert [found[p] for p in places] == [b"%d:%d" % (n, i) for i in range(15)]


def test_writes_to_a_partition_that_was_added(case: Case) -> None:
    topic = case.topic(1)
    case.write(topic, b"old")
    case.admin.add_partitions(topic, 3)
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            assert case.write(topic, b"new", partition=2) == [0]
            break
        except UnknownTopic:
            assert time.monotonic() < deadline
