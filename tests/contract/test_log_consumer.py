"""Contract of the log port: what consumers promise, over every adapter."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from contract.log_adapters import ADAPTERS, WAIT_S, Case, at, open_case, read, records_of, values

from clicktide.errors import LogError, OffsetOutOfRange, UnknownTopic
from clicktide.log.port import LogConsumer, Outgoing


@pytest.fixture(params=ADAPTERS)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    yield from open_case(request.param, tmp_path)


def numbers(start: int, stop: int) -> list[bytes]:
    return [b"%d" % i for i in range(start, stop)]


def poll_error(consumer: LogConsumer) -> LogError:
    """The error that `poll` comes to raise."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        try:
            consumer.poll(100, 0.1)
        except LogError as e:
            return e
    raise AssertionError("poll raised nothing")


def test_reads_from_the_position_on(case: Case) -> None:
    topic = case.topic()
    case.write(topic, *numbers(0, 10))
    consumer = case.consumer()
    consumer.assign({at(topic): 4})
    records = read(consumer, 6)
    assert [r.offset for r in records] == [4, 5, 6, 7, 8, 9]
    assert values(records) == numbers(4, 10)


def test_answers_at_most_what_was_asked_for(case: Case) -> None:
    topic = case.topic(2)
    for partition in (0, 1):
        case.write(topic, *numbers(0, 20), partition=partition)
    consumer = case.consumer()
    consumer.assign({at(topic, 0): 0, at(topic, 1): 0})
    assert len(read(consumer, 40, max_records=7)) == 40


def test_with_nothing_new_it_waits_out_its_time(case: Case) -> None:
    topic = case.topic()
    consumer = case.consumer()
    consumer.assign({at(topic): 0})
    started = time.monotonic()
    assert consumer.poll(10, case.quiet_s) == []
    assert case.quiet_s * 0.9 <= time.monotonic() - started < case.quiet_s + 2
    assert consumer.poll(10, 0) == []


def test_without_an_assignment_there_is_nothing(case: Case) -> None:
    consumer = case.consumer()
    assert consumer.poll(10, 0.01) == []
    consumer.assign({})
    assert consumer.poll(10, 0.01) == []


def test_a_write_wakes_a_waiting_poll(case: Case) -> None:
    topic = case.topic()
    consumer = case.consumer()
    consumer.assign({at(topic): 0})
    consumer.poll(10, case.quiet_s)
    producer = case.producer
    timer = threading.Timer(0.2, producer.send, ([Outgoing(topic, None, b"x", partition=0)], WAIT_S))
    timer.start()
    started = time.monotonic()
    assert values(records_of(consumer.poll(10, WAIT_S))) == [b"x"]
    assert time.monotonic() - started < WAIT_S / 2
    timer.join()


def test_a_paused_partition_is_skipped_and_goes_on_where_it_stood(case: Case) -> None:
    topic = case.topic(2)
    for partition in (0, 1):
        case.write(topic, *numbers(0, 5), partition=partition)
    consumer = case.consumer()
    consumer.assign({at(topic, 0): 2, at(topic, 1): 0})
    consumer.pause([at(topic, 0)])
    assert {r.partition for r in read(consumer, 5)} == {1}
    assert consumer.poll(10, case.quiet_s) == []
    consumer.resume([at(topic, 0)])
    assert [(r.partition, r.offset) for r in read(consumer, 3)] == [(0, 2), (0, 3), (0, 4)]


def test_pause_in_the_middle_loses_and_repeats_nothing(case: Case) -> None:
    topic = case.topic()
    case.write(topic, *numbers(0, 50))
    consumer = case.consumer()
    consumer.assign({at(topic): 0})
    found = read(consumer, 3, max_records=3)
    consumer.pause([at(topic)])
    assert consumer.poll(10, case.quiet_s) == []
    consumer.resume([at(topic)])
    assert values(found + read(consumer, 47)) == numbers(0, 50)


def test_seek_goes_back_and_forth(case: Case) -> None:
    topic = case.topic()
    case.write(topic, *numbers(0, 30))
    consumer = case.consumer()
    consumer.assign({at(topic): 0})
    assert values(read(consumer, 5, max_records=5)) == numbers(0, 5)
    consumer.seek(at(topic), 2)
    assert values(read(consumer, 4, max_records=4)) == numbers(2, 6)
    consumer.seek(at(topic), 25)
    assert values(read(consumer, 5)) == numbers(25, 30)
    consumer.seek(at(topic), 0)
    assert values(read(consumer, 30)) == numbers(0, 30)


def test_seek_back_after_everything_was_read(case: Case) -> None:
    topic = case.topic()
    case.write(topic, *numbers(0, 5))
    consumer = case.consumer()
    consumer.assign({at(topic): 0})
    read(consumer, 5)
    assert consumer.poll(10, 0.05) == []
    consumer.seek(at(topic), 3)
    assert values(read(consumer, 2)) == numbers(3, 5)
    assert consumer.poll(10, 0.05) == []
    consumer.assign({at(topic): 1})
    assert values(read(consumer, 4)) == numbers(1, 5)


def test_seek_right_after_assign(case: Case) -> None:
    topic = case.topic(2)
    for partition in (0, 1):
        case.write(topic, *numbers(0, 4), partition=partition)
    consumer = case.consumer()
    consumer.assign({at(topic, 0): 0, at(topic, 1): 0})
    consumer.seek(at(topic, 1), 3)
    found = read(consumer, 5)
    assert sorted((r.partition, r.offset) for r in found) == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 3)]


def test_seek_of_a_paused_partition_leaves_it_paused(case: Case) -> None:
    topic = case.topic()
    case.write(topic, *numbers(0, 4))
    consumer = case.consumer()
    consumer.assign({at(topic): 0})
    consumer.pause([at(topic)])
    consumer.seek(at(topic), 3)
    assert consumer.poll(10, case.quiet_s) == []
    consumer.resume([at(topic)])
    assert [r.offset for r in read(consumer, 1)] == [3]


def test_assign_replaces_what_was_assigned_and_unpauses(case: Case) -> None:
    topic = case.topic(2)
    for partition in (0, 1):
        case.write(topic, *numbers(0, 3), partition=partition)
    consumer = case.consumer()
    consumer.assign({at(topic, 0): 0})
    consumer.pause([at(topic, 0)])
    consumer.assign({at(topic, 0): 1})
    assert [(r.partition, r.offset) for r in read(consumer, 2)] == [(0, 1), (0, 2)]
    consumer.assign({at(topic, 1): 2})
    assert [(r.partition, r.offset) for r in read(consumer, 1)] == [(1, 2)]
    case.write(topic, b"late", partition=0)
    assert consumer.poll(10, case.quiet_s) == []


def test_a_partition_must_exist_to_be_assigned(case: Case) -> None:
    topic = case.topic(2)
    consumer = case.consumer()
    with pytest.raises(UnknownTopic):
        consumer.assign({at(case.prefix + "no"): 0})
    with pytest.raises(UnknownTopic):
        consumer.assign({at(topic, 2): 0})


@pytest.mark.parametrize("what", ["seek", "pause", "resume"])
def test_what_is_not_assigned_cannot_be_moved_or_paused(case: Case, what: str) -> None:
    topic = case.topic()
    consumer = case.consumer()
    with pytest.raises(LogError, match="not assigned"):
        consumer.seek(at(topic), 0) if what == "seek" else getattr(consumer, what)([at(topic)])


def test_a_busy_partition_does_not_starve_the_others(case: Case) -> None:
    topic = case.topic(2)
    case.write(topic, *numbers(0, 2000), partition=0)
    consumer = case.consumer()
    consumer.assign({at(topic, 0): 0, at(topic, 1): 0})
    read(consumer, 10, max_records=10)
    case.write(topic, b"quiet", partition=1)
    deadline = time.monotonic() + WAIT_S
    while True:
        records = records_of(consumer.poll(100, 0.2))
        if any(r.partition == 1 for r in records):
            break
        # The busy one has always something new.
        case.write(topic, *(r.value for r in records), partition=0)
        assert time.monotonic() < deadline, "the quiet partition was never read"


def test_a_position_that_retention_has_passed_is_an_error_until_it_is_moved(case: Case) -> None:
    topic = case.topic(2)
    for partition in (0, 1):
        case.write(topic, *numbers(0, 10), partition=partition)
    case.admin.delete_records({at(topic): 6})
    consumer = case.consumer()
    consumer.assign({at(topic): 2})
    for _ in range(2):
        error = poll_error(consumer)
        assert isinstance(error, OffsetOutOfRange)
        assert (error.topic, error.partition, error.offset, error.earliest) == (topic, 0, 2, 6)
    consumer.seek(at(topic), error.earliest)
    assert values(read(consumer, 4)) == numbers(6, 10)


def test_one_position_out_of_range_loses_nothing_of_the_others(case: Case) -> None:
    topic = case.topic(2)
    for partition in (0, 1):
        case.write(topic, *numbers(0, 10), partition=partition)
    case.admin.delete_records({at(topic, 0): 6})
    consumer = case.consumer()
    consumer.assign({at(topic, 0): 0, at(topic, 1): 0})
    found: list[int] = []
    deadline = time.monotonic() + WAIT_S
    moved = False
    while len(found) < 14:
        assert time.monotonic() < deadline
        try:
            found += [r.offset for r in records_of(consumer.poll(3, 0.2))]
        except OffsetOutOfRange as e:
            consumer.seek(at(topic, e.partition), e.earliest)
            moved = True
    assert moved
    assert sorted(found) == sorted([*range(10), *range(6, 10)])


def test_a_position_behind_the_end_is_out_of_range(case: Case) -> None:
    topic = case.topic()
    case.write(topic, *numbers(0, 3))
    consumer = case.consumer()
    consumer.assign({at(topic): 7})
    error = poll_error(consumer)
    assert isinstance(error, OffsetOutOfRange)
    assert (error.offset, error.earliest) == (7, 0)
    consumer.seek(at(topic), 3)
    assert consumer.poll(10, 0.05) == []


def test_fetch_reads_single_offsets_and_moves_nothing(case: Case) -> None:
    topic = case.topic(2)
    case.write(topic, *numbers(0, 20))
    consumer = case.consumer()
    consumer.assign({at(topic): 5})
    assert read(consumer, 1, max_records=1)[0].offset == 5
    found = consumer.fetch(at(topic), [3, 19, 0, 3], WAIT_S)
    assert {offset: r.value for offset, r in found.items()} == {0: b"0", 3: b"3", 19: b"19"}
    assert all(r.offset == offset and r.topic == topic and r.partition == 0 for offset, r in found.items())
    assert [r.offset for r in read(consumer, 2, max_records=2)] == [6, 7]


def test_fetch_leaves_out_what_is_not_stored(case: Case) -> None:
    topic = case.topic()
    case.write(topic, *numbers(0, 10))
    case.admin.delete_records({at(topic): 4})
    consumer = case.consumer()
    assert sorted(consumer.fetch(at(topic), [0, 3, 4, 9, 10, 99], WAIT_S)) == [4, 9]
    assert consumer.fetch(at(topic), [], WAIT_S) == {}
    assert consumer.fetch(at(topic), [1], WAIT_S) == {}


def test_fetch_has_all_of_a_record(case: Case) -> None:
    topic = case.topic()
    case.producer.send([Outgoing(topic, b"k", b"v", (("h", b"1"),), 0, 1_700_000_000_000)], WAIT_S)
    assert case.consumer().fetch(at(topic), [0], WAIT_S) == {
        0: (topic, 0, 0, 1_700_000_000_000, b"k", b"v", (("h", b"1"),))
    }


def test_committed_offsets_outlive_the_consumer_and_belong_to_the_group(case: Case) -> None:
    topic = case.topic(3)
    case.write(topic, *numbers(0, 3))
    consumer = case.consumer("a")
    everywhere = [at(topic, i) for i in range(3)]
    assert consumer.committed(everywhere) == {}
    consumer.commit({at(topic, 0): 2, at(topic, 2): 0})
    consumer.commit({at(topic, 0): 3})
    assert consumer.committed(everywhere) == {at(topic, 0): 3, at(topic, 2): 0}
    assert case.consumer("a").committed(everywhere) == {at(topic, 0): 3, at(topic, 2): 0}
    assert case.consumer("b").committed(everywhere) == {}
    assert case.admin.committed(case.prefix + "a", everywhere) == {at(topic, 0): 3, at(topic, 2): 0}
    assert case.admin.committed(case.prefix + "b", everywhere) == {}


def test_a_commit_may_go_back(case: Case) -> None:
    topic = case.topic()
    case.write(topic, *numbers(0, 3))
    consumer = case.consumer()
    consumer.commit({at(topic): 3})
    consumer.commit({at(topic): 1})
    assert consumer.committed([at(topic)]) == {at(topic): 1}


def test_committing_moves_no_position(case: Case) -> None:
    topic = case.topic()
    case.write(topic, *numbers(0, 10))
    consumer = case.consumer()
    consumer.assign({at(topic): 0})
    read(consumer, 4, max_records=4)
    consumer.commit({at(topic): 1})
    assert [r.offset for r in read(consumer, 6)] == [4, 5, 6, 7, 8, 9]


def test_bounds(case: Case) -> None:
    topic = case.topic(2)
    case.write(topic, *numbers(0, 7), partition=1)
    case.admin.delete_records({at(topic, 1): 3})
    both = [at(topic, 0), at(topic, 1)]
    expected = {at(topic, 0): (0, 0), at(topic, 1): (3, 7)}
    assert case.consumer().bounds(both) == expected
    assert case.admin.bounds(both) == expected
    assert case.consumer().bounds([]) == {}
    with pytest.raises(UnknownTopic):
        case.consumer().bounds([at(case.prefix + "no")])


def test_offsets_at_a_time(case: Case) -> None:
    topic = case.topic(2)
    stamps = [1000, 2000, 2000, 3000]
    case.producer.send([Outgoing(topic, None, b"x", partition=0, timestamp=t) for t in stamps], WAIT_S)
    consumer = case.consumer()
    both = [at(topic, 0), at(topic, 1)]
    expected = {0: 0, 1000: 0, 1001: 1, 2000: 1, 2001: 3, 3000: 3, 3001: 4}
    for stamp, offset in expected.items():
        assert consumer.offsets_at(both, stamp) == {at(topic, 0): offset, at(topic, 1): 0}


def test_closing_twice_is_no_error(case: Case) -> None:
    topic = case.topic()
    consumer = case.consumer()
    consumer.assign({at(topic): 0})
    consumer.close()
    consumer.close()
