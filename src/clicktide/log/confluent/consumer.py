"""The consumer on librdkafka: told what to read, hands records on as columns.

Costs about a microsecond of Python a record. A broker that is away shows as `LogUnavailable` from `poll`, found out
without waiting for it, and goes away by itself.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from clicktide.errors import LogError, LogUnavailable, OffsetOutOfRange, UnknownTopic
from clicktide.log.confluent.admin import ConfluentAdmin
from clicktide.log.confluent.client import ALL_BROKERS_DOWN, OUT_OF_RANGE, consumer_conf, telling, told
from clicktide.log.confluent.inquiry import Inquiry
from clicktide.log.confluent.outage import Outage
from clicktide.log.confluent.ranges import read_offsets
from clicktide.log.kafka import Cluster
from clicktide.log.limits import REQUEST_TIMEOUT_S
from clicktide.log.port import Batch, Headers, Record, TopicInfo, TopicPartition

_PROBE_S = 2.0


class ConfluentConsumer:
    """`LogConsumer` on librdkafka. Connects on use; for one thread at a time."""

    def __init__(self, cluster: Cluster, group: str) -> None:
        self._cluster = cluster
        self._group = group
        self._admin = ConfluentAdmin(cluster)
        self._inquiry = Inquiry(cluster, group)
        # Asks through a handle of its own: the other one is for this consumer's thread.
        self._prober = Inquiry(cluster, group)
        self._outage = Outage(lambda: self._prober.counts(_PROBE_S))
        self._consumer: Consumer | None = None
        self._fetcher: Consumer | None = None
        self._positions: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()
        self._errors: dict[TopicPartition, LogError] = {}

    def _client(self) -> Consumer:
        if self._consumer is None:
            conf = consumer_conf(self._cluster, self._group)
            conf["error_cb"] = self._outage.heard
            with telling("open a consumer"):
                self._consumer = Consumer(conf)
        return self._consumer

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        counts = self._inquiry.counts() if positions else {}
        for p in positions:
            if not 0 <= p.partition < counts.get(p.topic, 0):
                raise UnknownTopic(f"{p.topic}:{p.partition} does not exist")
        self._positions = dict(positions)
        self._paused.clear()
        self._errors.clear()
        self._reassign()

    def _reassign(self) -> None:
        """Everything from its position, what was fetched before is dropped."""
        with telling("assign partitions"):
            self._client().assign([KafkaPartition(*p, offset) for p, offset in self._positions.items()])
            if self._positions:
                # librdkafka remembers a pause across assignments.
                self._client().resume([KafkaPartition(*p) for p in self._positions])
            if self._paused:
                self._client().pause([KafkaPartition(*p) for p in self._paused])

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._check_assigned([partition])
        self._positions[partition] = offset
        self._errors.pop(partition, None)
        try:
            self._client().seek(KafkaPartition(*partition, offset))
        except KafkaException:
            # Not being fetched yet, as just after an assignment.
            self._reassign()

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        self._check_assigned(partitions)
        self._paused.update(partitions)
        with telling("pause"):
            self._client().pause([KafkaPartition(*p) for p in partitions])

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        self._check_assigned(partitions)
        self._paused.difference_update(partitions)
        with telling("resume"):
            self._client().resume([KafkaPartition(*p) for p in partitions])

    def _check_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        for p in partitions:
            if p not in self._positions:
                raise LogError(f"{p.topic}:{p.partition} is not assigned")

    def poll(self, max_records: int, timeout_s: float) -> list[Batch]:
        deadline = time.monotonic() + timeout_s
        if self._outage.ended():
            self._consumer = None  # not closed, which would ask its brokers
            self._reassign()
        client = self._client()
        while True:
            with telling("read"):
                messages = client.consume(max_records, 0)
                left = deadline - time.monotonic()
                # `consume` waits until it has all it was asked for, `poll` for the first only.
                if not messages and left > 0 and not self._standing_error():
                    first = client.poll(left)
                    if first is not None:
                        messages = [first]
                        if max_records > 1:
                            messages += client.consume(max_records - 1, 0)
            batches = self._sort(messages)
            if batches:
                return batches
            if (error := self._standing_error()) is not None:
                raise error
            if time.monotonic() >= deadline:
                self._outage.check()
                return []

    def _standing_error(self) -> LogError | None:
        return next((e for p, e in self._errors.items() if p not in self._paused), None)

    def _sort(self, messages: list[Any]) -> list[Batch]:
        """Messages as batches, in the order in which the partitions appear; keeps the errors for later."""
        groups: dict[tuple[str, int], list[Any]] = {}
        for message in messages:
            if message.error() is None:
                groups.setdefault((message.topic(), message.partition()), []).append(message)
            else:
                self._note(message)
        batches = []
        for place, found in groups.items():
            partition = TopicPartition(*place)
            position = self._positions.get(partition)
            if position is None:
                continue
            # Records from before a seek may still come.
            group = found if found[0].offset() >= position else [m for m in found if m.offset() >= position]
            if not group:
                continue
            batches.append(_batch(partition, group))
            self._positions[partition] = group[-1].offset() + 1
        return batches

    def _note(self, message: Any) -> None:
        error = message.error()
        if message.topic() is None or message.partition() is None or message.partition() < 0:
            if not error.retriable() and error.code() != ALL_BROKERS_DOWN:
                raise told(error, "read")
            return
        partition = TopicPartition(message.topic(), message.partition())
        if partition not in self._positions:
            return
        if error.code() in OUT_OF_RANGE:
            position = self._positions[partition]
            earliest = self._inquiry.bounds([partition])[partition][0]
            self._errors[partition] = OffsetOutOfRange(*partition, position, earliest)
        else:
            self._errors[partition] = told(error, f"read {partition.topic}:{partition.partition}")

    def fetch(self, partition: TopicPartition, offsets: Sequence[int], timeout_s: float) -> dict[int, Record]:
        deadline = time.monotonic() + timeout_s
        if not offsets:
            return {}
        low, high = self._inquiry.bounds([partition], timeout_s)[partition]
        wanted = sorted({o for o in offsets if low <= o < high})
        if self._fetcher is None:
            conf = consumer_conf(self._cluster, self._group)
            # What retention takes away meanwhile is missing from the answer, and that is all.
            conf["auto.offset.reset"] = "earliest"
            conf["enable.partition.eof"] = True
            with telling("open a consumer"):
                self._fetcher = Consumer(conf)
        try:
            return read_offsets(self._fetcher, partition, wanted, deadline)
        except LogUnavailable:
            self._fetcher = None
            raise

    def committed(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return self._inquiry.committed(partitions)

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        self._inquiry.commit(offsets)

    def bounds(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        return self._inquiry.bounds(partitions)

    def offsets_at(self, partitions: Sequence[TopicPartition], timestamp: int) -> dict[TopicPartition, int]:
        if not partitions:
            return {}
        with telling("ask for offsets by time"):
            answer = self._client().offsets_for_times(
                [KafkaPartition(*p, timestamp) for p in partitions], timeout=REQUEST_TIMEOUT_S
            )
        found = {}
        for p in answer:
            if p.error is not None:
                raise told(p.error, "ask for offsets by time")
            found[TopicPartition(p.topic, p.partition)] = p.offset
        late = [p for p, offset in found.items() if offset < 0]
        return found | {p: end for p, (_, end) in self._inquiry.bounds(late).items()}

    def topics(self) -> dict[str, TopicInfo]:
        return self._admin.topics()

    def close(self) -> None:
        for client in (self._consumer, self._fetcher):
            if client is not None:
                client.close()
        self._consumer = self._fetcher = None
        self._outage.close()
        self._prober.close()
        self._inquiry.close()
        self._admin.close()


def _batch(partition: TopicPartition, messages: list[Any]) -> Batch:
    headers = [m.headers() for m in messages]
    return Batch(
        partition.topic,
        partition.partition,
        [m.offset() for m in messages],
        [m.timestamp()[1] for m in messages],
        [m.key() for m in messages],
        [m.value() or b"" for m in messages],
        [_headers(h) for h in headers] if any(headers) else None,
    )


def _headers(found: Any) -> Headers:
    return tuple((name, value if value is not None else b"") for name, value in found or ())
