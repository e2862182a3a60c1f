"""Repeats: failed slices that wait for their next turn.

Pure. Promises: each comes again after its backoff (it doubles with every failure, up to half a minute, with jitter), and for ever.
"""

from __future__ import annotations

import heapq

from clicktide.flight import Entry
from clicktide.log.port import TopicPartition

_BACKOFF_S = 0.5
_MAX_BACKOFF_S = 30.0


class Repeats:
    """The failed slices of one task. Times are seconds of one clock."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, TopicPartition, Entry]] = []
        self._sequence = 0  # of two that are due at once the first to fail comes first

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, partition: TopicPartition, entry: Entry, now: float, jitter: float) -> None:
        """`entry.fails` tells how long it waits; `jitter`, from 0 to 1, where between half of that and all of it."""
        wait = min(_MAX_BACKOFF_S, _BACKOFF_S * 2 ** min(entry.fails - 1, 10)) * (0.5 + jitter / 2)
        self._sequence += 1
        heapq.heappush(self._heap, (now + wait, self._sequence, partition, entry))

    def pop(self, now: float) -> tuple[TopicPartition, Entry] | None:
        """One that has waited long enough."""
        if not self._heap or self._heap[0][0] > now:
            return None
        _, _, partition, entry = heapq.heappop(self._heap)
        return partition, entry

    def entries(self, partition: TopicPartition) -> list[Entry]:
        return [e for _, _, p, e in self._heap if p == partition]

    def clear(self) -> None:
        self._heap = []
