"""Buffers by size: a slice is bounded by its bytes as well, and so is what is read ahead."""

from __future__ import annotations

import dataclasses

import pytest
from unit.core.making import Clock
from unit.core.memory_log import MemoryConsumer, MemoryLog
from unit.core.rig import LIMITS, TOPIC, Rig, all_of

from clicktide.buffers import Buffers
from clicktide.log.port import Outgoing, TopicPartition

PARTITION = TopicPartition(TOPIC, 0)


class Asked(MemoryConsumer):
    """Notes how many records it was asked for."""

    def __init__(self, log):
        super().__init__(log, "group")
        self.asked = []

    def poll(self, max_records, timeout_s):
        self.asked.append(max_records)
        return super().poll(max_records, timeout_s)


class Bench:
    """Buffers over a log in memory: slices of at most 10 records and 100 bytes."""

    def __init__(self, partitions=1, due=None, longest_ms=None):
        self.clock, self.wall_ms = Clock(), 1_760_000_000_000
        self.log = MemoryLog(lambda: self.wall_ms)
        self.log.create_topics({TOPIC: partitions})
        self.consumer = Asked(self.log)
        self.consumer.assign({TopicPartition(TOPIC, p): 0 for p in range(partitions)})
        wall_ms = lambda: self.wall_ms  # noqa: E731
        self.buffers = Buffers(self.consumer, 10, 100, 1.0, self.clock, due, wall_ms, longest_ms)

    def write(self, *sizes, headers=(), partition=0):
        self.log.send([Outgoing(TOPIC, None, b"x" * s, headers, partition) for s in sizes], 1.0)

    def cut(self):
        """Offsets of the slices that are ripe now, none read for them."""
        found = []
        while (ripe := self.buffers.ripe(self.clock())) is not None:
            taken = self.buffers.take(*ripe)
            assert len(taken.offsets) == len(taken.timestamps) == len(taken.values)
            found.append(taken.offsets)
        return found


@pytest.fixture
def bench():
    return Bench()


def due(headers):
    return int(dict(headers)["due"])


def at(ms):
    return (("due", b"%d" % ms),)


def test_a_slice_is_full_by_its_bytes(bench):
    bench.write(40, 40, 40, 40, 40)
    bench.buffers.read(0.0)
    assert bench.cut() == [[0, 1], [2, 3]], "and the last waits for more, or for its time"
    bench.clock.pass_(1.0)
    assert bench.cut() == [[4]]


def test_so_many_bytes_are_not_too_many(bench):
    bench.write(50, 50, 50, 49, 1)
    bench.buffers.read(0.0)
    assert bench.cut() == [[0, 1], [2, 3, 4]]


def test_a_record_that_is_larger_than_a_slice_goes_alone(bench):
    bench.write(1, 500, 101, 99)
    bench.buffers.read(0.0)
    bench.clock.pass_(1.0)
    assert bench.cut() == [[0], [1], [2], [3]]


def test_many_small_records_are_cut_by_their_number(bench):
    bench.write(*[9] * 20)
    for _ in range(2):
        bench.buffers.read(0.0)
        assert len(bench.cut()[0]) == 10


def test_what_was_cut_counts_no_more(bench):
    """Else a partition would be full for ever, with what it once had."""
    found = []
    for _ in range(12):
        bench.write(30)
        bench.buffers.read(0.0)
        found += bench.cut()
    assert found == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_nothing_is_read_while_a_slice_s_worth_of_bytes_is_there(bench):
    bench.write(60)
    bench.buffers.read(0.0)
    bench.write(60)
    bench.buffers.read(0.0)
    bench.write(60)
    bench.buffers.read(0.0)
    assert len(bench.consumer.asked) == 2
    assert bench.cut() == [[0]]
    bench.buffers.read(0.0)
    assert len(bench.consumer.asked) == 3


def test_of_large_records_no_more_are_read_at_once_than_a_slice_holds(bench):
    bench.write(*[45] * 12, *[1] * 30)
    for _ in range(6):
        bench.buffers.read(0.0)
        bench.clock.pass_(1.0)
        bench.cut()
    asked = bench.consumer.asked
    assert asked == [10, 2, 2, 10, 10, 10], "before the first read nobody knows; small ones are read as ever"


def test_empty_records_are_cut_by_their_number(bench):
    bench.write(*[0] * 15)
    bench.buffers.read(0.0)
    bench.buffers.read(0.0)
    assert bench.cut() == [list(range(10))]
    assert bench.consumer.asked == [10]


def test_what_is_due_is_cut_by_its_bytes_with_its_headers():
    bench = Bench(due=due)
    now = bench.wall_ms
    for wait in (0, 0, 0, 500, 0):
        bench.write(40, headers=at(now + wait))
    bench.buffers.read(0.0)
    bench.clock.pass_(1.0)
    assert bench.cut() == [[0, 1], [2]]
    assert bench.consumer._paused == {PARTITION}
    bench.wall_ms += 500
    taken = bench.buffers.take(*bench.buffers.ripe(bench.clock()))
    assert [due(h) for h in taken.headers] == [now + 500, now]
    assert not bench.consumer._paused


def test_what_has_waited_together_leaves_together_slice_by_slice():
    bench = Bench(due=due, longest_ms=lambda _topic: 10_000)
    bench.write(*[40] * 5, headers=at(bench.wall_ms + 10**12))
    bench.buffers.read(0.0)
    assert bench.cut() == []
    bench.wall_ms += 10_000
    bench.clock.pass_(1.0)
    taken = [bench.buffers.take(*bench.buffers.ripe(bench.clock())).offsets for _ in range(2)]
    assert taken == [[0, 1], [2, 3]], "the second slice does not wait as long again"
    assert bench.buffers.let_go == 5
    bench.write(40, headers=at(bench.wall_ms + 10**12))
    bench.buffers.read(0.0)
    assert bench.cut() == [[4]], "what came later waits its own time"


def test_a_paused_partition_holds_no_more_than_a_slice_and_a_read():
    bench = Bench(due=due)
    bench.write(45, headers=at(0))
    bench.buffers.read(0.0)
    bench.write(*[45] * 30, headers=at(bench.wall_ms + 1000))
    held = []
    for _ in range(10):
        bench.buffers.read(0.0)
        held.append(sum(b.size for b in bench.buffers._buffers.values()))
        bench.clock.pass_(1.0)
        bench.cut()
    assert max(held) <= 2 * 100


@pytest.mark.parametrize("size", [1, 30, 99, 101])
def test_the_bytes_in_flight_are_bounded(tmp_path, size):
    """In a source: its slices, with what it has read ahead, are those of `in_flight` and a read."""
    rig = Rig(tmp_path, partitions=2)
    source = rig.source(limits=dataclasses.replace(LIMITS, slice_records=50, slice_bytes=100, in_flight=3))
    for partition in range(2):
        rig.write(200, partition, values=[b"x" * size] * 200)
    seen = [set(), set()]
    while open_ := all_of(source):
        assert len(open_) <= 3
        for found in open_:
            assert len(found.offsets) == 1 or sum(map(len, found.values)) <= 100
            seen[found.place.partition].update(found.offsets)
            source.ack(found.id)
    assert seen == [set(range(200))] * 2


def test_a_slice_of_an_earlier_life_ends_where_it_did_and_holds_no_more_bytes(bench):
    bench.write(40, 40, 40)
    bench.buffers.read(0.0)
    partition, count = bench.buffers.ripe(bench.clock())
    assert (partition, count) == (PARTITION, 2)
    assert bench.buffers.take(partition, count, 1).offsets == [0]
    bench.clock.pass_(1.0)
    assert bench.cut() == [[1, 2]]
