"""Flights: the slices of one partition on their way, and the offset up to which all are done.

Pure. Promises: an offset is given out for commit only when every record before it was acked, and acked long
enough ago that no store can still lose it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from clicktide.slices import Slice


@dataclass(slots=True)
class Family:
    """A slice as it was cut: how many of the pieces that it was cut into later are not acked."""

    left: int = 1


@dataclass(slots=True, eq=False)
class Entry:
    """One slice on its way. `slice` is dropped at the ack: only the offsets matter from then on.

    `acks_before`: how many acks there had been when it was first emitted, or failed last. More at its next failure mean
    that others got through meanwhile. `strikes`, `killed` and `way` are as in `suspects`.
    """

    slice: Slice | None
    next: int
    timestamp: int
    fails: int = 0
    acks_before: int = 0
    acked_at: float | None = None
    strikes: int = 0
    killed: bool = False
    way: str = ""
    family: Family = field(default_factory=Family)


@dataclass(slots=True)
class Flights:
    """The flights of one partition, in offset order. `position` is the next offset to commit, and `done` the one up to which
    all is acked. Times are seconds of the same clock."""

    position: int
    done: int = field(init=False)
    done_timestamp: int = 0
    _entries: deque[Entry] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.done = self.position

    def started(self, entry: Entry) -> None:
        self._entries.append(entry)

    def acked(self, entry: Entry, now: float) -> None:
        entry.acked_at = now
        entry.slice = None
        for e in self._entries:
            if e.acked_at is None:
                break
            self.done, self.done_timestamp = e.next, max(self.done_timestamp, e.timestamp)

    def split(self, entry: Entry, parts: list[Entry]) -> None:
        """Put the pieces of a slice in its place."""
        entry.family.left += len(parts) - 1
        at = self._entries.index(entry)
        del self._entries[at]
        for part in reversed(parts):
            self._entries.insert(at, part)

    def committable(self, acked_before: float) -> int | None:
        """The new position, when it moves: past all leading entries acked at or before `acked_before`."""
        moved = False
        while self._entries:
            acked_at = self._entries[0].acked_at
            if acked_at is None or acked_at > acked_before:
                break
            self.position = self._entries.popleft().next
            moved = True
        return self.position if moved else None
