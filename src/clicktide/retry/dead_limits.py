"""Limits on dead letters: stops a stage that sends so much to `dead` that a bad deploy or a bad sender is the likelier reason.

Pure: times are passed in (s of one clock). Promises: nothing is counted that was not written; a stage that is stopped
starts again by itself once a whole window has passed in which nothing had to be refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from clicktide.errors import ClicktideError
from clicktide.log.port import TopicPartition
from clicktide.retry.policy import DeadLimits


class DeadLetterLimit(ClicktideError):
    """A stage is stopped: its slices have to wait."""

    retriable = True
    code = "dead_limit"


def group(stage: str) -> str:
    """What a stage is counted under: a store's shards together (`mysql.17` is `mysql`)."""
    return stage.partition(".")[0] or "unknown"


@dataclass(slots=True)
class _Stage:
    """What a stage has written within the window: (at, dead letters, records they were found among)."""

    written: deque[tuple[float, int, int]] = field(default_factory=deque)
    reached: dict[TopicPartition, int] = field(default_factory=dict)
    dead: int = 0
    records: int = 0
    stopped_at: float | None = None
    refused_at: float = 0.0
    probe_at: float = 0.0

    def forget(self, before: float) -> None:
        while self.written and self.written[0][0] <= before:
            _, dead, records = self.written.popleft()
            self.dead -= dead
            self.records -= records


class Meter:
    """Counts each stage's dead letters against the limits. Use: `admits`, write, `wrote`; not for several threads.

    The records of a stage are not all seen here, only its dead letters; the offsets that lie between them tell how many there
    were. In a retry topic all records have failed before, so there only the burst counts (`among_all` False).
    """

    def __init__(self, limits: DeadLimits) -> None:
        self._limits = limits
        self._stages: dict[str, _Stage] = {}

    def admits(
        self, stage: str, partition: TopicPartition, offsets: Sequence[int], now: float, *, among_all: bool
    ) -> bool:
        """Whether dead letters at these offsets may be written now. A stage that is stopped admits one call in `probe_s`."""
        s = self._stages.setdefault(stage, _Stage())
        s.forget(now - self._limits.window_s)
        if s.stopped_at is not None and now - s.refused_at >= self._limits.window_s:
            s.stopped_at = None
        if s.stopped_at is None:
            dead = s.dead + len(offsets)
            records = s.records + _advance(s, partition, offsets)
            dense = not among_all or dead > self._limits.ratio * records
            if dead <= self._limits.burst or not dense:
                return True
            s.stopped_at, s.probe_at = now, now + self._limits.probe_s
        if now >= s.probe_at:
            s.probe_at = now + self._limits.probe_s
            return True
        s.refused_at = now
        return False

    def wrote(self, stage: str, partition: TopicPartition, offsets: Sequence[int], now: float) -> None:
        """Count what the broker has acknowledged."""
        s = self._stages.setdefault(stage, _Stage())
        records = _advance(s, partition, offsets)
        s.reached[partition] = max(s.reached.get(partition, -1), *offsets)
        s.written.append((now, len(offsets), records))
        s.dead += len(offsets)
        s.records += records

    def resume(self, stage: str) -> None:
        """An operator allows it: start counting anew."""
        self._stages.pop(stage, None)

    def stopped(self, now: float) -> dict[str, dict[str, float]]:
        """The stages that are stopped: dead letters within the window, and for how long (s)."""
        return {
            name: {"dead": s.dead, "for_s": round(now - s.stopped_at, 1)}
            for name, s in self._stages.items()
            if s.stopped_at is not None and now - s.refused_at < self._limits.window_s
        }


def _advance(s: _Stage, partition: TopicPartition, offsets: Sequence[int]) -> int:
    """How many records lie between the last dead letter of the partition and these; a slice that comes again adds none."""
    reached = s.reached.get(partition, min(offsets) - 1)
    return max(0, max(offsets) - reached)
