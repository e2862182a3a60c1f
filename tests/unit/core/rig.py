"""A source on a real embedded log (or one in memory), with a clock, a watch and a broker that do as the test says."""

from __future__ import annotations

from pathlib import Path

from unit.core.making import Clock
from unit.core.memory_log import MemoryLog

from clicktide.log.embedded import EmbeddedLog
from clicktide.log.faults import FaultyLog
from clicktide.log.port import Headers, Outgoing, TopicPartition
from clicktide.seen import Seen
from clicktide.slices import Slice
from clicktide.source import Limits, Source

TOPIC = "tide.events"
GROUP = "group"
LIMITS = Limits(slice_records=4, wait_s=0.0, in_flight=3, commit_delay_s=5.0, poison_fails=3)


class Watch:
    """Answers what the test wants, as if it had looked just now."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.run_id: str | None = "redis-1"
        self.all_away = False
        self.checked_at: float | None = None

    def seen(self) -> Seen:
        return Seen(self.run_id, self._clock() if self.checked_at is None else self.checked_at, self.all_away)


class Rig:
    """One topic, in a log in `folder`, or in memory without one. `source()` is one life of a spout task; making another is its restart."""

    def __init__(self, folder: Path | None, partitions: int = 1, topic: str = TOPIC) -> None:
        self.clock = Clock()
        self.wall_ms = 1_760_000_000_000
        self.watch = Watch(self.clock)
        wall_ms = lambda: self.wall_ms  # noqa: E731 - both logs have the rig's clock
        sound = EmbeddedLog(folder / "log.db", 64 << 20, wall_ms) if folder else MemoryLog(wall_ms)
        self.log = FaultyLog(sound)  # what the source reads; the test itself sees no faults
        self.admin, self.producer = sound.admin(), sound.producer()
        self.topic = topic
        self.admin.create_topics({topic: partitions})
        self._lives = 0

    def source(
        self,
        task: int = 0,
        tasks: int = 1,
        limits: Limits = LIMITS,
        due=None,
        jitter=0.0,
        longest_ms=None,
    ) -> Source:
        self._lives += 1
        return Source(
            self.log.consumer(GROUP),
            [self.topic],
            task,
            tasks,
            limits,
            self.watch,
            self.clock,
            lambda: jitter,
            f"boot{self._lives}",
            due,
            lambda: self.wall_ms,
            longest_ms=longest_ms,
        )

    def write(
        self, count: int, partition: int = 0, headers: Headers = (), values: list[bytes] | None = None
    ) -> list[int]:
        """The offsets of `count` new records."""
        values = values or [f"value-{i}".encode() for i in range(count)]
        records = [Outgoing(self.topic, b"key", v, headers, partition) for v in values]
        return [placed.offset for placed in self.producer.send(records, 1.0)]

    def committed(self, partition: int = 0) -> int | None:
        tp = TopicPartition(self.topic, partition)
        return self.admin.committed(GROUP, [tp]).get(tp)

    def settle(self, source: Source) -> None:
        """Let all that may be committed be committed."""
        self.clock.pass_(LIMITS.commit_delay_s + 1.0)
        source.commit(force=True)


def all_of(source: Source, most: int = 1000) -> list[Slice]:
    """Slices until there is none."""
    found: list[Slice] = []
    while (one := source.next(0.0)) is not None:
        found.append(one)
        assert len(found) < most, "no end of slices"
    return found


def offsets(slices: list[Slice]) -> list[list[int]]:
    return [s.offsets for s in slices]
