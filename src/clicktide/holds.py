"""Holds: what is parked for a store that is away stays where it lies until that is back, instead of being read and parked again.

Pure, but for what it is told of the stores. Promises: a record is held only in the topic where dead stores' backlogs lie, only if it
was parked for a store that is known to be away, and no longer than `longest_s` after it was; for each such store a few records go
through every `PROBE_S`, so that its return is noticed whatever the fresh path does; then all go, whatever time they had; no
order changes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from clicktide import topics
from clicktide.log.port import Headers, TopicPartition
from clicktide.retry.policy import STORE_WIDE, longest_wait_ms

# Stages whose store is away, and that store. Nobody knows: empty.
Away = Mapping[str, str]

PROBE_S = 2.0
# So many that a slice's worth of work is not spent on a store that is still away, and one bad record does not decide.
PROBE_RECORDS = 10
# As long as `/v1/status` believes a bolt that says nothing any more; a clock that is off by more is believed no more than that.
_SILENT_MS = 60_000
# How long the way of a slice, and of what a bolt publishes of itself, may take.
_LEARNT_S = 4.0
_PARKED = STORE_WIDE.encode()


class Holds:
    """The holds of one task's partitions. `away` answers what is known now, `topic` is the one that is held (full name); `probe_s` is
    that of the breakers. Times are seconds of one clock, and ms since the epoch where records' own are compared."""

    def __init__(self, topic: str, longest_s: float, probe_s: float, away: Callable[[], Away]) -> None:
        self._topic, self._longest_ms, self._ask = topic, longest_s * 1000, away
        self._settle_ms = int((probe_s + _LEARNT_S) * 1000)
        self._wait_ms = longest_wait_ms(topic)
        self._away: Away = {}
        self._back: dict[str, int] = {}  # stages whose store was away, and when it was so no longer
        self._probed: dict[str, float] = {}
        self._looked: dict[TopicPartition, tuple[int, int, Away, int]] = {}

    def clear(self) -> None:
        """Forget the partitions' records: they will be read again, or are others."""
        self._looked = {}

    def learn(self, now_ms: int) -> None:
        """Ask what is known of the stores: often, since their return counts from when it was learned."""
        away = self._ask()
        if away != self._away:
            self._back |= dict.fromkeys(self._away.keys() - away.keys(), now_ms)
            self._away = away

    def free(
        self,
        partition: TopicPartition,
        offsets: Sequence[int],
        timestamps: Sequence[int],
        headers: Sequence[Headers],
        most: int,
        now: float,
        now_ms: int,
    ) -> int:
        """How many of the partition's `most` leading records (at least 1) are not held; 0: they all are. To be called only when
        those that need not wait any more are then taken."""
        if not self._away or partition.topic != self._topic or not headers:
            return most
        if others := self._others(partition, offsets, headers, most):
            return others
        if now_ms - timestamps[0] >= self._longest_ms:
            return next((i for i in range(1, most) if now_ms - timestamps[i] < self._longest_ms), most)
        store = self._away[parked_for(headers[0])]
        if now - self._probed.get(store, float("-inf")) < PROBE_S:
            return 0
        self._probed[store] = now
        return min(most, PROBE_RECORDS)

    def at_once(self, topic: str, timestamp: int, headers: Headers, now_ms: int) -> bool:
        """Whether a record's own time does not matter, as `learn` last found: its store is away, and so it is held or a probe; or that
        is back since it was parked (at `timestamp`)."""
        if topic != self._topic:
            return False
        stage = parked_for(headers)
        if stage in self._away:
            return True
        since_ms = now_ms - self._back.get(stage, 0)
        # Not for longer than anything waits: by a clock that is wrong, what was parked later might look older.
        if since_ms >= self._wait_ms:
            return False
        # What breakers refused that had not noticed yet goes when all of them must have: at once it might only be refused again.
        settled_ms = self._settle_ms if since_ms >= self._settle_ms else 0
        return timestamp <= self._back[stage] + settled_ms

    def _others(
        self,
        partition: TopicPartition,
        offsets: Sequence[int],
        headers: Sequence[Headers],
        most: int,
    ) -> int:
        """How many records there are up to the last one that waits for nobody who is away: those before it have to make way."""
        first, last, away = offsets[0], offsets[most - 1], self._away
        known = self._looked.get(partition)
        # A held partition is asked about at every `next`, and nothing of it changes: its records are looked through once.
        if known is None or known[:3] != (first, last, away):
            found = next((i + 1 for i in reversed(range(most)) if parked_for(headers[i]) not in away), 0)
            known = self._looked[partition] = (first, last, away, found)
        return known[3]


def parked_for(headers: Headers) -> str:
    """The stage whose store the record waits for; "" if it was not parked because its store was away. Never raises."""
    stage = kind = b""
    for name, value in headers:
        if name == topics.STAGE:
            stage = value
        elif name == topics.ERROR_CLASS:
            kind = value
    return stage.decode("utf-8", "replace") if kind == _PARKED else ""


def agreed(said: Mapping[bytes, bytes], now_ms: int) -> dict[str, str]:
    """What all bolts that try again take for away, of those heard of within the last minute: one that does not would go on.

    `said` is what bolts publish of themselves (`watch.publish_health`), by task. Never raises: what cannot be read counts as not said.
    """
    found: dict[str, str] | None = None
    for text in said.values():
        try:
            health = json.loads(text)
            at, by_store = int(health["at"]), health["away"]
            its = {str(stage): str(store) for store, stages in by_store.items() for stage in stages}
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            continue
        if abs(now_ms - at) <= _SILENT_MS:
            found = its if found is None else {s: store for s, store in its.items() if s in found}
    return found or {}
