"""Buffers: what was read of each partition and is not cut into slices yet, and how much of it may be cut now.

Promises: a partition's records leave in the order of the log; a busy partition does not starve the others; a partition whose
first record is not due is paused at the log, and waits for it, though never longer than its topic's longest wait.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from clicktide.errors import LogError, LogUnavailable, OffsetOutOfRange
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
    paused: bool = False
    head: int = -1  # the offset that the partition waits for, and since when (ms)
    head_since_ms: int = 0


class Buffers:
    """The buffers of one task's partitions. A slice is ripe with `records` records, or `wait_s` after its first was read.

    `due`, `wall_ms` and `longest_ms` are as in `Source`.
    """

    def __init__(
        self,
        consumer: LogConsumer,
        records: int,
        wait_s: float,
        clock: Callable[[], float],
        due: Callable[[Headers], int] | None,
        wall_ms: Callable[[], int],
        longest_ms: Callable[[str], int] | None,
    ) -> None:
        self._consumer, self._records, self._wait_s, self._clock = consumer, records, wait_s, clock
        self._due, self._wall_ms, self._longest_ms = due, wall_ms, longest_ms
        self._buffers: dict[TopicPartition, _Buffer] = {}
        self.let_go = 0  # records that wanted to wait for longer than any of ours does

    def __bool__(self) -> bool:
        return bool(self._buffers)

    def clear(self) -> None:
        """Forget all that was read: the consumer is about to be somewhere else."""
        self._buffers = {}

    def read(self, timeout_s: float) -> None:
        """Read once, unless a whole slice is there already. Raises `LogUnavailable`."""
        for batch in self._poll(timeout_s):
            self._keep(batch, self._clock())

    def ripe(self, now: float) -> tuple[TopicPartition, int] | None:
        """A partition that has a slice to cut, and of how many records."""
        for partition, buffer in self._buffers.items():
            full = len(buffer.offsets) >= self._records
            if full or now - buffer.since >= self._wait_s:
                count = min(self._due_count(partition, buffer), self._records)
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
        if any(len(b.offsets) >= self._records and not b.paused for b in self._buffers.values()):
            return []
        since = [b.since for b in self._buffers.values() if not b.paused]
        if since:
            # Until the first of them is ripe: asking again and again meanwhile costs more than all the reading.
            timeout_s = min(timeout_s, max(0.0, min(since) + self._wait_s - self._clock()))
        try:
            return self._consumer.poll(self._records, timeout_s)
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

    def _keep(self, batch: Batch, now: float) -> None:
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

    def _due_count(self, partition: TopicPartition, buffer: _Buffer) -> int:
        """How many leading records are due; pauses and resumes the partition accordingly."""
        if self._due is None:
            return len(buffer.offsets)
        now_ms = self._wall_ms()
        count = next(
            (i for i, h in enumerate(buffer.headers) if self._due(h) > now_ms),
            len(buffer.offsets),
        )
        if count == 0 and self._waited_enough(partition, buffer, now_ms):
            # All of it was there when the head began to wait: the partition has been paused since.
            count = len(buffer.offsets)
            self.let_go += count
        if count == 0 and not buffer.paused:
            self._consumer.pause([partition])
            buffer.paused = True
        elif count and buffer.paused:
            self._consumer.resume([partition])
            buffer.paused = False
        return count

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
