"""Divert: the one place that writes the retry topics and `dead`.

Promises: when `divert` returns, every failed record is on the broker in its next topic, with its own key, bytes and
partition number, and an envelope that says what happened; only then may the slice be acked. A stage that sends too much to
`dead` is stopped and alarms (`retry.dead_limits`): its slices wait, nothing of them is written or lost.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from clicktide import topics
from clicktide.log.limits import MAX_RECORD_BYTES, size_of
from clicktide.log.port import LogConsumer, LogProducer, Outgoing, Record, TopicPartition
from clicktide.retry import dead_limits, envelope
from clicktide.retry.dead_limits import DeadLetterLimit, Meter
from clicktide.retry.policy import STORE_WIDE, Policy, Uniform, Verdict
from clicktide.slices import Failure, Place

log = logging.getLogger(__name__)


class Alarms(Protocol):
    """How the divert bolts, the spouts and the operators hear of each other. None of it raises for a store that is away."""

    def allowed(self, stage: str) -> bool:
        """Whether an operator lets the stage's dead letters through just now."""

    def raised(self, stopped: dict[str, dict[str, float]]) -> None:
        """Tell of the stages that are stopped; again at each refusal. None: what was stopped is not any more."""


class Unheard:
    """Nobody allows anything, nobody is told."""

    def allowed(self, stage: str) -> bool:  # noqa: ARG002
        return False

    def raised(self, stopped: dict[str, dict[str, float]]) -> None:
        pass


class Divert:
    """Writes failures where the policy says. `now_ms` is the wall clock; `uniform(a, b)` the random source."""

    def __init__(
        self,
        consumer: LogConsumer,
        producer: LogProducer,
        policy: Policy,
        prefix: str,
        now_ms: Callable[[], int],
        uniform: Uniform,
        timeout_s: float = 15.0,
        alarms: Alarms | None = None,
    ) -> None:
        self._consumer, self._producer, self._policy, self._prefix = consumer, producer, policy, prefix
        self._now_ms, self._uniform, self._timeout_s = now_ms, uniform, timeout_s
        self._meter, self._alarms = Meter(policy.dead), alarms or Unheard()

    def divert(self, place: Place, failures: Sequence[Failure]) -> dict[str, int]:
        """Write them all; answers how many went to each topic (name without prefix).

        Raises `DeadLetterLimit` before anything is written when a stage is stopped, and `LogUnavailable` when the broker did not acknowledge all: the slice must fail then, and what was
        written comes again, harmlessly (a claim knows its own record).
        """
        partition = TopicPartition(place.topic, place.partition)
        offsets = sorted({f.offset for f in failures})
        records = self._consumer.fetch(partition, offsets, self._timeout_s)
        outgoing: list[Outgoing] = []
        counts: dict[str, int] = {}
        dead: dict[str, list[int]] = {}
        for failure in failures:
            record = records.get(failure.offset)
            if record is None:
                log.error(
                    "record %s:%d:%d is past retention; its failure is kept without its bytes",
                    place.topic,
                    place.partition,
                    failure.offset,
                )
                record = Record(place.topic, place.partition, failure.offset, self._now_ms(), None, b"")
            verdict, written = self._outgoing(record, place, failure)
            outgoing.append(written)
            counts[verdict.topic] = counts.get(verdict.topic, 0) + 1
            if verdict.topic == topics.DEAD:
                dead.setdefault(dead_limits.group(failure.stage), []).append(failure.offset)
        self._admit(dead, partition)
        self._producer.send(outgoing, self._timeout_s)
        for stage, its in dead.items():
            self._meter.wrote(stage, partition, its, self._now_ms() / 1000)
        return counts

    def stopped(self) -> dict[str, dict[str, float]]:
        """The stages that are stopped (`Meter.stopped`)."""
        return self._meter.stopped(self._now_ms() / 1000)

    def _admit(self, dead: dict[str, list[int]], partition: TopicPartition) -> None:
        now = self._now_ms() / 1000
        fresh = self._tier(partition.topic) is None
        for stage, offsets in dead.items():
            if self._meter.admits(stage, partition, offsets, now, among_all=fresh):
                continue
            if self._alarms.allowed(stage):
                self._meter.resume(stage)
                # Else a refusal from just before it was allowed would sound for another minute.
                self._alarms.raised(self._meter.stopped(now))
                continue
            stopped = self._meter.stopped(now)
            self._alarms.raised(stopped)
            raise DeadLetterLimit(
                f"stage {stage} is stopped: {stopped[stage]['dead']:.0f} dead letters within its window; its slices wait."
                f" ./tide dead allow --stage {stage} --for 10m lets them through"
            )

    def _outgoing(self, record: Record, place: Place, failure: Failure) -> tuple[Verdict, Outgoing]:
        now = self._now_ms()
        before = envelope.read(record, place.topic_id)
        # Waiting for a store that is away was no failing, however long it was held: the first failure after it is the first.
        first_failed_at = now if before.kind == STORE_WIDE else before.first_failed_at or now
        verdict = self._policy.decide(
            failure.kind,
            failure.code,
            before.attempt,
            self._tier(place.topic),
            first_failed_at,
            now,
            self._uniform,
            failure.away_s,
        )
        parked = verdict.topic != topics.DEAD and verdict.attempt == before.attempt
        after = dataclasses.replace(
            before,
            attempt=verdict.attempt,
            first_failed_at=now if parked else first_failed_at,
            not_before=verdict.not_before,
            stage=failure.stage,
            kind=failure.kind,
            code=verdict.code,
            error=failure.error,
        )
        topic = self._prefix + verdict.topic
        return verdict, _fitting(
            Outgoing(topic, record.key, record.value, after.headers(), record.partition, now)
        )

    def _tier(self, topic: str) -> str | None:
        name = topic.removeprefix(self._prefix)
        return name.removeprefix("retry.") if name in topics.RETRY else None


def _fitting(written: Outgoing) -> Outgoing:
    """Without what is more than the broker takes: a record of nearly the limit has no room for our headers, and one that
    is refused again and again would hold up its partition. (Parse has refused it for a thirtieth of that.)"""
    excess = size_of(written) - MAX_RECORD_BYTES
    if excess <= 0:
        return written
    log.error("a record of %d bytes for %s is cut to what fits", len(written.value), written.topic)
    kept = len(written.value) - excess
    # A key that leaves no room at all is no user's.
    return written._replace(value=written.value[: max(0, kept)], key=None if kept < 0 else written.key)
