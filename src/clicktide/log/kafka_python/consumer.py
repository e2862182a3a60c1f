"""The consumer on kafka-python: told what to read, hands records on as columns.

A broker that is away shows as `LogUnavailable` from `poll` once its connections have been down for a while.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kafka import KafkaConsumer, OffsetAndMetadata
from kafka import TopicPartition as KafkaPartition
from kafka.errors import OffsetOutOfRangeError

from clicktide.errors import LogError, LogUnavailable, OffsetOutOfRange, UnknownTopic
from clicktide.log.kafka import FETCH_WAIT_MS, Cluster
from clicktide.log.kafka_python.admin import KafkaPythonAdmin
from clicktide.log.kafka_python.client import common, opened, telling
from clicktide.log.limits import REQUEST_TIMEOUT_S
from clicktide.log.port import Batch, Headers, Record, TopicInfo, TopicPartition
from clicktide.log.runs import runs

_REQUEST_MS = int(REQUEST_TIMEOUT_S * 1000)
# With nothing read for so long, ask whether the broker is there at all.
_DOUBT_S = 2.0
_POLL_MS = 200


class KafkaPythonConsumer:
    """`LogConsumer` on kafka-python. Connects on use; for one thread at a time."""

    def __init__(self, cluster: Cluster, group: str) -> None:
        self._cluster = cluster
        self._group = group
        self._admin = KafkaPythonAdmin(cluster)
        self._consumer: Any = None
        self._fetcher: Any = None
        self._positions: dict[TopicPartition, int] = {}
        self._errors: dict[TopicPartition, LogError] = {}
        self._paused: set[TopicPartition] = set()
        self._heard_at = time.monotonic()

    def _client(self) -> Any:
        if self._consumer is None:
            with telling("open a consumer"):
                self._consumer = opened(KafkaConsumer, _conf(self._cluster, self._group))
        return self._consumer

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        counts = self._admin.counts() if positions else {}
        for p in positions:
            if not 0 <= p.partition < counts.get(p.topic, 0):
                raise UnknownTopic(f"{p.topic}:{p.partition} does not exist")
        client = self._client()
        self._positions = dict(positions)
        self._paused.clear()
        self._errors.clear()
        self._heard_at = time.monotonic()
        partitions = [KafkaPartition(*p) for p in positions]
        with telling("assign partitions"):
            client.assign(partitions)
            client.resume(*partitions)
            for p, offset in positions.items():
                client.seek(KafkaPartition(*p), offset)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._check_assigned([partition])
        self._client().seek(KafkaPartition(*partition), offset)
        self._positions[partition] = offset
        self._errors.pop(partition, None)

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        self._check_assigned(partitions)
        self._client().pause(*(KafkaPartition(*p) for p in partitions))
        self._paused.update(partitions)

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        self._check_assigned(partitions)
        self._client().resume(*(KafkaPartition(*p) for p in partitions))
        self._paused.difference_update(partitions)

    def _check_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        for p in partitions:
            if p not in self._positions:
                raise LogError(f"{p.topic}:{p.partition} is not assigned")

    def poll(self, max_records: int, timeout_s: float) -> list[Batch]:
        deadline = time.monotonic() + timeout_s
        batches: list[Batch] = []
        if self._positions:
            batches = self._read(max_records, 0 if self._standing_error() is not None else timeout_s)
        if batches:
            self._heard_at = time.monotonic()
            return batches
        if (error := self._standing_error()) is not None:
            raise error
        if (left := deadline - time.monotonic()) > 0:
            # The client comes back early where it has nothing to wait for.
            time.sleep(min(left, timeout_s))
        self._check_broker(timeout_s)
        return []

    def _standing_error(self) -> LogError | None:
        return next((e for p, e in self._errors.items() if p not in self._paused), None)

    def _read(self, max_records: int, timeout_s: float) -> list[Batch]:
        try:
            with telling("read"):
                found = self._client().poll(timeout_ms=int(timeout_s * 1000), max_records=max_records)
        except LogUnavailable as e:
            if not isinstance(e.__cause__, OffsetOutOfRangeError):
                raise
            for partition, offset in e.__cause__.args[0].items():
                p = TopicPartition(*partition)
                self._errors[p] = OffsetOutOfRange(*p, offset, self._admin.bounds([p])[p][0])
            return []
        batches = []
        for partition, records in found.items():
            batches.append(_batch(TopicPartition(*partition), records))
            self._positions[TopicPartition(*partition)] = records[-1].offset + 1
        return batches

    def _check_broker(self, timeout_s: float) -> None:
        """Raise when the broker has been silent for long and does not answer now either."""
        reading = [p for p in self._positions if p not in self._paused]
        if not reading or time.monotonic() - self._heard_at < _DOUBT_S:
            return
        p = KafkaPartition(*reading[0])
        with telling("read"):
            self._client().end_offsets([p], timeout_ms=int(max(timeout_s, 0.2) * 1000))
        self._heard_at = time.monotonic()

    def fetch(self, partition: TopicPartition, offsets: Sequence[int], timeout_s: float) -> dict[int, Record]:
        deadline = time.monotonic() + timeout_s
        if not offsets:
            return {}
        place = KafkaPartition(*partition)
        if self._fetcher is None:
            with telling("open a consumer"):
                # What retention takes away meanwhile is missing from the answer, and that is all.
                self._fetcher = opened(
                    KafkaConsumer, _conf(self._cluster, self._group) | {"auto_offset_reset": "earliest"}
                )
        with telling("ask for offsets"):
            half_ms = max(1, int(timeout_s * 500))
            low = self._fetcher.beginning_offsets([place], timeout_ms=half_ms)[place]
            high = self._fetcher.end_offsets([place], timeout_ms=half_ms)[place]
        wanted = {o for o in offsets if low <= o < high}
        found: dict[int, Record] = {}
        for first, last in runs(sorted(wanted)):
            self._fetcher.assign([place])
            self._fetcher.seek(place, first)
            for record in self._records(place, last, deadline):
                if record.offset in wanted:
                    found[record.offset] = _record(partition, record)
        self._fetcher.unsubscribe()
        return found

    def _records(self, place: Any, last: int, deadline: float) -> Iterator[Any]:
        while True:
            if time.monotonic() >= deadline:
                raise LogUnavailable(f"Kafka: {place.topic}:{place.partition}: not read in time")
            with telling("read"):
                found = self._fetcher.poll(timeout_ms=_POLL_MS)
            for record in found.get(place, ()):
                yield record
                if record.offset >= last:
                    return

    def committed(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return self._admin.committed(self._group, partitions)

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        if offsets:
            with telling(f"commit offsets of group {self._group}"):
                self._client().commit(
                    {KafkaPartition(*p): OffsetAndMetadata(offset, "", -1) for p, offset in offsets.items()},
                    timeout_ms=_REQUEST_MS,
                )

    def bounds(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        return self._admin.bounds(partitions)

    def offsets_at(self, partitions: Sequence[TopicPartition], timestamp: int) -> dict[TopicPartition, int]:
        if not partitions:
            return {}
        with telling("ask for offsets by time"):
            answer = self._client().offsets_for_times(
                {KafkaPartition(*p): timestamp for p in partitions}, timeout_ms=_REQUEST_MS
            )
        found = {TopicPartition(*p): o.offset for p, o in answer.items() if o is not None and o.offset >= 0}
        late = [p for p in partitions if p not in found]
        return found | {p: end for p, (_, end) in self._admin.bounds(late).items()}

    def topics(self) -> dict[str, TopicInfo]:
        return self._admin.topics()

    def close(self) -> None:
        for client in (self._consumer, self._fetcher):
            if client is not None:
                client.close(timeout_ms=_REQUEST_MS)
        self._consumer = self._fetcher = None
        self._admin.close()


def _conf(cluster: Cluster, group: str) -> dict[str, Any]:
    return common(cluster) | {
        "group_id": group,
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "allow_auto_create_topics": False,
        "fetch_max_wait_ms": FETCH_WAIT_MS,
        "metrics_enabled": False,
    }


def _batch(partition: TopicPartition, records: Sequence[Any]) -> Batch:
    return Batch(
        partition.topic,
        partition.partition,
        [r.offset for r in records],
        [r.timestamp for r in records],
        [r.key for r in records],
        [r.value or b"" for r in records],
        [_headers(r) for r in records] if any(r.headers for r in records) else None,
    )


def _headers(record: Any) -> Headers:
    return tuple((name, value or b"") for name, value in record.headers)


def _record(partition: TopicPartition, record: Any) -> Record:
    return Record(
        *partition, record.offset, record.timestamp, record.key, record.value or b"", _headers(record)
    )
