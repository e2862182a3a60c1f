"""The fleet: all slices of a task that were cut and are not acked, on their way or waiting to come again.

Pure. Promises: a slice counts once towards what is open, however many pieces it was cut into later; an id of an earlier life, or
from before all was begun anew, is nobody's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from clicktide.flight import Entry, Family, Flights
from clicktide.log.port import TopicPartition


class Fleet:
    """The flights of one task's partitions. Times are seconds of one clock."""

    def __init__(self) -> None:
        # Replaced as a whole, never partition by partition: another thread may be reading.
        self.flights: dict[TopicPartition, Flights] = {}
        self.open = 0
        self._departed: dict[str, tuple[TopicPartition, Entry]] = {}
        self._kin: dict[TopicPartition, Family] = {}

    def begin(self, positions: Mapping[TopicPartition, int]) -> None:
        """Forget all; the partitions are read from these offsets on."""
        self.flights = {partition: Flights(offset) for partition, offset in positions.items()}
        self.open, self._departed, self._kin = 0, {}, {}

    @property
    def in_flight(self) -> int:
        """How many slices are on their way just now."""
        return len(self._departed)

    def started(self, partition: TopicPartition, entry: Entry, *, kin: bool) -> None:
        """A slice was cut. All that are `kin` of a partition count as one together."""
        self.flights[partition].started(entry)
        if kin:
            entry.family = self._kin.setdefault(partition, Family(0))
            entry.family.left += 1
        self.open += entry.family.left == 1

    def departed(self, partition: TopicPartition, entry: Entry) -> None:
        assert entry.slice is not None
        self._departed[entry.slice.id] = (partition, entry)

    def landed(self, slice_id: str) -> tuple[TopicPartition, Entry] | None:
        """It is on its way no longer, acked or failed; None for an id that is not known."""
        return self._departed.pop(slice_id, None)

    def acked(self, partition: TopicPartition, entry: Entry, now: float) -> None:
        entry.family.left -= 1
        self.open -= not entry.family.left
        self.flights[partition].acked(entry, now)

    def committable(self, acked_before: float) -> Iterator[tuple[TopicPartition, int]]:
        """The positions that move: see `Flights.committable`."""
        for partition, flights in self.flights.items():
            if (offset := flights.committable(acked_before)) is not None:
                yield partition, offset

    def entries(self, partition: TopicPartition) -> list[Entry]:
        """What is on its way of one partition."""
        return [e for p, e in self._departed.values() if p == partition]
