"""Buffers: what was read of each partition and is not cut into slices yet, and how much of it may be cut now.

Promises: a partition's records leave in the order of the log; a busy partition does not starve the others; a partition whose
first record is not due, or is held (`holds`), is paused at the log, and waits, though never longer than its topic's longest wait for what is
not due; nothing is read while some partition has a whole slice to cut.
"""

from __future__ import annotations

import logging
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

from clicktide.errors import LogError, LogUnavailable, OffsetOutOfRange
from clicktide.holds import Holds
from clicktide.log.port import Batch, Headers, LogConsumer, TopicPartition

log = logging.getLogger(__name__)


class Taken(NamedTuple):
    """Consecutive records of one partition. `headers` is None when none of them has any."""

    offsets: list[int]
    timestamps: list[int]
    values: list[bytes]
    headers: list[Headers] | None


@dataclass(slots=True)
class _Buffer:
    """Records read and not yet cut, of one partition."""

    since: float
    offsets: list[int] = field(default_factory=list)
    timestamps: list[int] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)
    headers: list[Headers] = field(default_factory=list)
    size: int = 0  # of all values, bytes
    paused: bool = False
    head: int = -1  # the offset that the partition waits for, and since when (ms)
    head_since_ms: int = 0
    free: int = -1  # up to this offset nothing waits any more: it has waited for long enough


class Buffers:
    """The buffers of one task's partitions. A slice is ripe with `records` records or `size` bytes of values, or `wait_s` after its
    first was read; it has at most so many of both, and one record however large that is.

    `due`, `wall_ms`, `longest_ms` and `holds` are as in `Source`.
    """

    def __init__(
        self,
        consumer: LogConsumer,
        records: int,
        size: int,
        wait_s: float,
        clock: Callable[[], float],
        due: Callable[[Headers], int] | None,
        wall_ms: Callable[[], int],
        longest_ms: Callable[[str], int] | None,
        holds: Holds | None = None,
    ) -> None:
        self._consumer, self._records, self._size = consumer, records, size
        self._wait_s, self._clock = wait_s, clock
        self._due, self._wall_ms, self._longest_ms, self._holds = due, wall_ms, longest_ms, holds
        self._buffers: dict[TopicPartition, _Buffer] = {}
        self._at_once = records  # as many as are read at once
        self.let_go = 0  # records that wanted to wait for longer than any of ours does

    def __bool__(self) -> bool:
        return bool(self._buffers)

    def clear(self) -> None:
        """Forget all that was read: the consumer is about to be somewhere else."""
        self._buffers = {}
        if self._holds is not None:
            self._holds.clear()

    def read(self, timeout_s: float) -> None:
        """Read once, unless a whole slice is there already. Raises `LogUnavailable`."""
        count = size = 0
        for batch in self._poll(timeout_s):
            count += len(batch.offsets)
            size += self._keep(batch, self._clock())
        if count:
            # The log counts records only: of large ones it is asked for no more than a slice holds, by what they were just now.
            self._at_once = max(1, min(self._records, self._size * count // max(1, size)))

    def ripe(self, now: float) -> tuple[TopicPartition, int] | None:
        """A partition that has a slice to cut, and of how many records."""
        if self._holds is not None:
            self._holds.learn(self._wall_ms())
        for partition, buffer in self._buffers.items():
            if self._full(buffer) or now - buffer.since >= self._wait_s:
                count = self._due_count(partition, buffer, now)
                if count > 0:
                    return partition, count
        return None

    def first(self, partition: TopicPartition) -> int:
        """The offset of the next record to be taken."""
        return self._buffers[partition].offsets[0]

    def take(self, partition: TopicPartition, count: int, end: int | None = None) -> Taken:
        """At most `count` records, all before the offset `end`."""
        buffer = self._buffers[partition]
        if end is not None:
            count = min(count, bisect_left(buffer.offsets, end))
        taken = Taken(
            buffer.offsets[:count],
            buffer.timestamps[:count],
            buffer.values[:count],
            buffer.headers[:count] if buffer.headers else None,
        )
        if count == len(buffer.offsets):
            del self._buffers[partition]
        else:
            buffer.size -= sum(map(len, taken.values))
            del (
                buffer.offsets[:count],
                buffer.timestamps[:count],
                buffer.values[:count],
                buffer.headers[:count],
            )
            # Move to the back, so that a busy partition does not starve the others.
            self._buffers[partition] = self._buffers.pop(partition)
        return taken

    def _poll(self, timeout_s: float) -> list[Batch]:
        if any(self._full(b) and not b.paused for b in self._buffers.values()):
            return []
        since = [b.since for b in self._buffers.values() if not b.paused]
        if since:
            # Until the first of them is ripe: asking again and again meanwhile costs more than all the reading.
            timeout_s = min(timeout_s, max(0.0, min(since) + self._wait_s - self._clock()))
        try:
            return self._consumer.poll(self._at_once, timeout_s)
        except OffsetOutOfRange as e:
            partition = TopicPartition(e.topic, e.partition)
            log.error("retention was faster than the topology: %s", e)
            # What was read before is still seen through: the log has lost it, the spout has not.
            self._consumer.seek(partition, e.earliest)
            return []
        except LogError as e:
            if not e.retriable:
                log.error("reading failed: %s", e)
            raise LogUnavailable(str(e)) from e

    def _full(self, buffer: _Buffer) -> bool:
        return len(buffer.offsets) >= self._records or buffer.size >= self._size

    def _fitting(self, buffer: _Buffer) -> int:
        """How many of its leading records a slice has room for."""
        count = min(len(buffer.offsets), self._records)
        # Two quick looks before the slow one: this is a step of every slice.
        if buffer.size <= self._size or sum(map(len, buffer.values[:count])) <= self._size:
            return count
        return max(1, bisect_right(list(accumulate(map(len, buffer.values[:count]))), self._size))

    def _keep(self, batch: Batch, now: float) -> int:
        """Answers the size of its values, bytes."""
        partition = TopicPartition(batch.topic, batch.partition)
        buffer = self._buffers.get(partition)
        if buffer is None:
            buffer = self._buffers[partition] = _Buffer(since=now)
        if batch.headers is not None or buffer.headers:
            # Some records of the buffer have headers: then there is an entry for each.
            buffer.headers += [()] * (len(buffer.offsets) - len(buffer.headers))
            buffer.headers += batch.headers if batch.headers is not None else [()] * len(batch.offsets)
        buffer.offsets += batch.offsets
        buffer.timestamps += batch.timestamps
        buffer.values += batch.values
        size = sum(map(len, batch.values))
        buffer.size += size
        return size

    def _due_count(self, partition: TopicPartition, buffer: _Buffer, now: float) -> int:
        """How many leading records are due and not held, as far as a slice has room; pauses and resumes the partition accordingly."""
        if self._due is None:
            return self._fitting(buffer)
        now_ms = self._wall_ms()
        most = self._fitting(buffer)
        if self._holds is not None:
            b = buffer
            most = self._holds.free(partition, b.offsets, b.timestamps, b.headers, most, now, now_ms)
            if not most:
                return self._pause(partition, buffer)
        if self._waits(partition, buffer, 0, now_ms):
            if not self._waited_enough(partition, buffer, now_ms):
                return self._pause(partition, buffer)
            # All of it was there when the head began to wait: the partition has been paused since.
            buffer.free = buffer.offsets[-1]
            self.let_go += len(buffer.offsets)
        if buffer.paused:
            self._consumer.resume([partition])
            buffer.paused = False
        return next((i for i in range(1, most) if self._waits(partition, buffer, i, now_ms)), most)

    def _pause(self, partition: TopicPartition, buffer: _Buffer) -> int:
        if not buffer.paused:
            self._consumer.pause([partition])
            buffer.paused = True
        return 0

    def _waits(self, partition: TopicPartition, buffer: _Buffer, i: int, now_ms: int) -> bool:
        if buffer.offsets[i] <= buffer.free or not buffer.headers or self._due is None:
            return False
        headers = buffer.headers[i]
        if self._due(headers) <= now_ms:
            return False
        holds = self._holds
        return holds is None or not holds.at_once(partition.topic, buffer.timestamps[i], headers, now_ms)

    def _waited_enough(self, partition: TopicPartition, buffer: _Buffer, now_ms: int) -> bool:
        if self._longest_ms is None:
            return False
        head = buffer.offsets[0]
        if head != buffer.head:
            buffer.head, buffer.head_since_ms = head, now_ms
        if now_ms - buffer.head_since_ms < self._longest_ms(partition.topic):
            return False
        log.warning("%s:%d:%d wants to wait for too long: let go", partition.topic, partition.partition, head)
        return True
