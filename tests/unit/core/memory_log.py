"""A log in memory, as much of the port as a source asks for: simulations need thousands of reads, and no disk. No pytest in here.

Offsets are the records' places. `test_memory_log` holds it against the embedded log.
"""

from __future__ import annotations

from clicktide.log.port import Batch, Placed, TopicInfo, TopicPartition


class MemoryLog:
    """One log; its `admin`, `producer` and consumers see each other's writes at once."""

    def __init__(self, wall_ms) -> None:
        self._wall_ms = wall_ms
        self._records: dict[TopicPartition, list] = {}
        self._committed: dict[tuple[str, TopicPartition], int] = {}
        self._topics: dict[str, TopicInfo] = {}

    def create_topics(self, wanted) -> None:
        for name, partitions in wanted.items():
            self._topics[name] = TopicInfo(name, f"{len(self._topics) + 1:032x}", partitions)
            self._records |= {TopicPartition(name, p): [] for p in range(partitions)}

    def send(self, records, _timeout_s) -> list[Placed]:
        placed = []
        for r in records:
            kept = self._records[TopicPartition(r.topic, r.partition)]
            placed.append(Placed(r.partition, len(kept)))
            kept.append((self._wall_ms(), r.key, r.value, r.headers))
        return placed

    def committed(self, group, partitions) -> dict[TopicPartition, int]:
        return {p: self._committed[group, p] for p in partitions if (group, p) in self._committed}

    def admin(self) -> MemoryLog:
        return self

    def producer(self) -> MemoryLog:
        return self

    def consumer(self, group) -> MemoryConsumer:
        return MemoryConsumer(self, group)


class MemoryConsumer:
    """What a `Source` calls of `LogConsumer`."""

    def __init__(self, log: MemoryLog, group: str) -> None:
        self._log, self._group = log, group
        self._positions: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()

    def assign(self, positions) -> None:
        self._positions, self._paused = dict(positions), set()

    def seek(self, partition, offset) -> None:
        self._positions[partition] = offset

    def pause(self, partitions) -> None:
        self._paused |= set(partitions)

    def resume(self, partitions) -> None:
        self._paused -= set(partitions)

    def poll(self, max_records, _timeout_s) -> list[Batch]:
        found, left = [], max_records
        for partition, at in list(self._positions.items()):
            new = [] if partition in self._paused else self._log._records[partition][at : at + left]
            if new:
                timestamps, keys, values, headers = map(list, zip(*new, strict=True))
                end = at + len(new)
                found.append(
                    Batch(
                        *partition,
                        range(at, end),
                        timestamps,
                        keys,
                        values,
                        headers if any(headers) else None,
                    )
                )
                left -= len(new)
                # To the back, so that what has always something new does not starve the others.
                del self._positions[partition]
                self._positions[partition] = end
        return found

    def committed(self, partitions) -> dict[TopicPartition, int]:
        return self._log.committed(self._group, partitions)

    def commit(self, offsets) -> None:
        self._log._committed |= {(self._group, p): o for p, o in offsets.items()}

    def bounds(self, partitions) -> dict[TopicPartition, tuple[int, int]]:
        return {p: (0, len(self._log._records[p])) for p in partitions}

    def topics(self) -> dict[str, TopicInfo]:
        return self._log._topics
