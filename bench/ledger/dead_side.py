"""What lies on `dead`: the malformed records by their bytes, the dead-lettered events by id and stage."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from bench.ledger.expected import Expected, digest
from clicktide import topics
from clicktide.errors import LogUnavailable, OffsetOutOfRange
from clicktide.log import open_log
from clicktide.log.port import Batch, LogConsumer, TopicPartition
from clicktide.settings import Settings

_CONFLICT = "id_conflict"
_PATIENCE_S = 30.0


class Letter(NamedTuple):
    """A dead-lettered event: where it failed, why, and what it says."""

    stage: str
    code: str
    event: dict[str, Any]
    received_at: int  # ms


@dataclass(slots=True)
class DeadSide:
    """`malformed`: digest of the truth's malformed bytes -> origins; `events`: id -> its letters."""

    malformed: defaultdict[bytes, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    codes: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    without_code: list[str] = field(default_factory=list)
    events: dict[str, list[Letter]] = field(default_factory=dict)
    total: int = 0

    def failed_at(self, event_id: str, *stages: str) -> bool:
        """Whether the event was dead-lettered at a stage that starts with one of `stages` ("" for any)."""
        return any(
            letter.code != _CONFLICT and letter.stage.startswith(stages)
            for letter in self.events.get(event_id, ())
        )

    def conflicting(self, event_id: str) -> bool:
        """Whether a record was refused for having this id with other content."""
        return any(letter.code == _CONFLICT for letter in self.events.get(event_id, ()))


def collect(expected: Expected, settings: Settings) -> DeadSide:
    """Read the whole topic. Raises `LogUnavailable` when the broker is away."""
    side = DeadSide()
    topic = settings.text("topics.prefix") + topics.DEAD
    consumer = open_log(settings).consumer("ledger")
    try:
        info = consumer.topics().get(topic)
        if info is None:
            return side
        partitions = [TopicPartition(topic, p) for p in range(info.partitions)]
        bounds = consumer.bounds(partitions)
        ends = {p: end for p, (start, end) in bounds.items() if start < end}
        consumer.assign({p: bounds[p][0] for p in ends})
        _read(consumer, ends, lambda batch: _take(batch, expected, side))
    finally:
        consumer.close()
    return side


def _read(consumer: LogConsumer, ends: dict[TopicPartition, int], take: Any) -> None:
    left = dict(ends)
    until = time.monotonic() + _PATIENCE_S
    while left:
        try:
            batches = consumer.poll(5000, 1.0)
        except OffsetOutOfRange as e:
            consumer.seek(TopicPartition(e.topic, e.partition), e.earliest)
            continue
        for batch in batches:
            take(batch)
            partition = TopicPartition(batch.topic, batch.partition)
            if partition in left and batch.offsets[-1] + 1 >= left[partition]:
                del left[partition]
        if batches:
            until = time.monotonic() + _PATIENCE_S
        elif time.monotonic() > until:
            raise LogUnavailable(
                f"the dead topic gave nothing for {_PATIENCE_S:g} s, {len(left)} partitions left"
            )


def _take(batch: Batch, expected: Expected, side: DeadSide) -> None:
    for i, value in enumerate(batch.values):
        side.total += 1
        headers = dict(batch.headers[i]) if batch.headers is not None else {}
        code = headers.get(topics.ERROR_CODE, b"").decode("utf-8", "replace")
        origin = headers.get(topics.ORIGIN) or b"%d:%d" % (batch.partition, batch.offsets[i])
        key = digest(value)
        if key in expected.malformed or key in expected.maybe_malformed:
            side.malformed[key].add(origin)
            side.codes[code] += 1
            if not code:
                side.without_code.append(expected.samples[key])
            continue
        try:
            event = orjson.loads(value)
            event_id = str(event["event_id"])
        except (orjson.JSONDecodeError, TypeError, KeyError):
            continue
        stage = headers.get(topics.STAGE, b"").decode("utf-8", "replace")
        if event_id in expected.facts or stage.startswith(("redis", "mysql")):
            received = event.get("received_at") or int(
                headers.get(topics.ORIGIN_TIMESTAMP) or batch.timestamps[i]
            )
            side.events.setdefault(event_id, []).append(Letter(stage, code, event, received))
