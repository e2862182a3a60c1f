"""Divert: the one place that writes the retry topics and `dead`.

Promises: when `divert` returns, every failed record is on the broker in its next topic, with its own key, bytes and
partition number, and an envelope that says what happened; only then may the slice be acked.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence

from clicktide import topics
from clicktide.log.limits import MAX_RECORD_BYTES, size_of
from clicktide.log.port import LogConsumer, LogProducer, Outgoing, Record, TopicPartition
from clicktide.retry import envelope
from clicktide.retry.policy import Policy, Uniform
from clicktide.slices import Failure, Place

log = logging.getLogger(__name__)


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
    ) -> None:
        self._consumer, self._producer, self._policy, self._prefix = consumer, producer, policy, prefix
        self._now_ms, self._uniform, self._timeout_s = now_ms, uniform, timeout_s

    def divert(self, place: Place, failures: Sequence[Failure]) -> dict[str, int]:
        """Write them all; answers how many went to each topic (name without prefix).

        Raises `LogUnavailable` when the broker did not acknowledge all: the slice must fail then, and what was
        written comes again, harmlessly (a claim knows its own record).
        """
        partition = TopicPartition(place.topic, place.partition)
        offsets = sorted({f.offset for f in failures})
        records = self._consumer.fetch(partition, offsets, self._timeout_s)
        outgoing: list[Outgoing] = []
        counts: dict[str, int] = {}
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
            topic, written = self._outgoing(record, place, failure)
            outgoing.append(written)
            counts[topic] = counts.get(topic, 0) + 1
        self._producer.send(outgoing, self._timeout_s)
        return counts

    def _outgoing(self, record: Record, place: Place, failure: Failure) -> tuple[str, Outgoing]:
        now = self._now_ms()
        before = envelope.read(record, place.topic_id)
        first_failed_at = before.first_failed_at or now
        verdict = self._policy.decide(
            failure.kind,
            failure.code,
            before.attempt,
            self._tier(place.topic),
            first_failed_at,
            now,
            self._uniform,
        )
        after = dataclasses.replace(
            before,
            attempt=verdict.attempt,
            first_failed_at=first_failed_at,
            not_before=verdict.not_before,
            stage=failure.stage,
            kind=failure.kind,
            code=verdict.code,
            error=failure.error,
        )
        topic = self._prefix + verdict.topic
        return verdict.topic, _fitting(
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
