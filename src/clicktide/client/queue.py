"""The queue: bounded by events and bytes; gives batches, holds back what has to wait, and knows what is not done yet.

Not thread-safe: `Client` calls it under its lock. Times are monotonic seconds, passed in.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable

from clicktide.client.item import Item


class Queue:
    """`events` and `size` (bytes) bound what is here and under way."""

    def __init__(self, events: int, size: int) -> None:
        self._most_events, self._most_bytes = events, size
        self._ready: deque[Item] = deque()
        self._later: list[tuple[float, int, Item]] = []
        self._under_way: dict[int, Item] = {}
        self._bytes = self._ready_bytes = 0

    def __len__(self) -> int:
        """Those under way included."""
        return len(self._ready) + len(self._later) + len(self._under_way)

    def fits(self, item: Item) -> bool:
        """One item always fits an empty queue."""
        return not len(self) or (
            len(self) < self._most_events and self._bytes + len(item.text) <= self._most_bytes
        )

    def put(self, item: Item) -> None:
        self._ready.append(item)
        self._bytes += len(item.text)
        self._ready_bytes += len(item.text)

    @property
    def waiting(self) -> tuple[int, int]:
        """Events and bytes that can be sent now."""
        return len(self._ready), self._ready_bytes

    def release(self, now: float) -> None:
        """Lets go what was held back until `now`."""
        while self._later and self._later[0][0] <= now:
            item = heapq.heappop(self._later)[2]
            self._ready.append(item)
            self._ready_bytes += len(item.text)

    def next_due(self) -> float | None:
        """When the first of those held back may go."""
        return self._later[0][0] if self._later else None

    def take(self, events: int, size: int) -> list[Item]:
        """The next batch, at most that large unless it is a single event; it counts as under way."""
        out: list[Item] = []
        total = 0
        while self._ready and len(out) < events:
            total += len(self._ready[0].text) + 32  # sent_at and the line's end
            if out and total > size:
                break
            item = self._ready.popleft()
            self._ready_bytes -= len(item.text)
            out.append(item)
        self._under_way.update((item.number, item) for item in out)
        return out

    def done(self, items: Iterable[Item]) -> None:
        """They are no longer under way, nor anywhere here."""
        for item in items:
            if self._under_way.pop(item.number, None) is not None:
                self._bytes -= len(item.text)

    def hold(self, items: Iterable[Item], until: float) -> None:
        """Puts back what was under way, to be sent at `until`."""
        for item in items:
            if self._under_way.pop(item.number, None) is not None:
                heapq.heappush(self._later, (until, item.number, item))

    def open_up_to(self, number: int) -> bool:
        """Whether an item with at most this number is not done."""
        return any(
            item.number <= number
            for group in (self._ready, (entry[2] for entry in self._later), self._under_way.values())
            for item in group
        )
