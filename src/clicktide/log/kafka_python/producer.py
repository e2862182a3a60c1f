"""The producer on kafka-python: its sender thread writes, callers wait for their acknowledgements.

What `send` answers was acknowledged by all in-sync replicas, written once for that call (idempotent).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError

from clicktide.errors import LogError, LogUnavailable, UnknownTopic
from clicktide.log.kafka import Cluster
from clicktide.log.kafka_python.admin import KafkaPythonAdmin
from clicktide.log.kafka_python.client import common, telling, told
from clicktide.log.limits import MAX_RECORD_BYTES, check_sizes
from clicktide.log.port import Outgoing, Placed

_CLOSE_S = 5.0
# A send may take so much longer than its timeout when it has to ask for a topic and nobody answers.
_LOOK_UP_S = 3.0


class KafkaPythonProducer:
    """`LogProducer` on kafka-python. Connects on use."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._admin = KafkaPythonAdmin(cluster, _LOOK_UP_S)
        self._lock = threading.Lock()
        self._producer: Any = None
        self._partitions: dict[str, int] = {}

    def send(self, records: Sequence[Outgoing], timeout_s: float) -> list[Placed]:
        deadline = time.monotonic() + timeout_s
        check_sizes(records)
        if not records:
            return []
        producer = self._open(records, timeout_s)
        with telling("write"):
            try:
                futures = [_write(producer, record) for record in records]
            except ValueError as e:
                # Its metadata does not show the partition yet.
                raise LogUnavailable(f"Kafka: write: {e}") from e
        return _wait(futures, deadline)

    def _open(self, records: Sequence[Outgoing], timeout_s: float) -> Any:
        """A producer that knows the partitions these records need; raises `UnknownTopic` where none can."""
        with self._lock:
            needed = {r.topic: 0 for r in records}
            for r in records:
                needed[r.topic] = max(needed[r.topic], r.partition or 0)
            known = all(self._partitions.get(topic, 0) > p for topic, p in needed.items())
            if not known:
                grown = self._look_up(needed)
                if grown and self._producer is not None:
                    # It would learn of the new partitions only when its metadata is old.
                    self._producer.close(timeout=_CLOSE_S)
                    self._producer = None
            if self._producer is None:
                with telling("open a producer"):
                    self._producer = KafkaProducer(**_conf(self._cluster, timeout_s))
            return self._producer

    def _look_up(self, needed: dict[str, int]) -> bool:
        """Ask for the topics; True when one that was known has grown."""
        before, self._partitions = self._partitions, self._admin.counts()
        for topic, partition in needed.items():
            count = self._partitions.get(topic)
            if count is None:
                raise UnknownTopic(f"topic {topic} does not exist")
            if partition >= count:
                raise UnknownTopic(f"topic {topic} has {count} partitions, there is no {partition}")
        return any(self._partitions.get(topic, count) > count for topic, count in before.items())

    def close(self) -> None:
        with self._lock:
            producer, self._producer = self._producer, None
            if producer is not None:
                producer.close(timeout=_CLOSE_S)
            self._admin.close()


def _conf(cluster: Cluster, timeout_s: float) -> dict[str, Any]:
    return common(cluster, timeout_s) | {
        "acks": "all",
        "enable_idempotence": True,
        "linger_ms": 2,
        "batch_size": 256 * 1024,
        "max_request_size": MAX_RECORD_BYTES + 48_576,
        # A sender that gave up must not be surprised much later by what it had given up.
        "delivery_timeout_ms": 15_000,
        "max_block_ms": 5_000,
        "allow_auto_create_topics": False,
        "metrics_enabled": False,
    }


def _write(producer: Any, record: Outgoing) -> Any:
    return producer.send(
        record.topic,
        value=record.value,
        key=record.key,
        headers=list(record.headers),
        partition=record.partition,
        timestamp_ms=record.timestamp,
    )


def _wait(futures: Sequence[Any], deadline: float) -> list[Placed]:
    """The answers; raises the error that says most about what to do next: a lasting one before one of the moment."""
    placed = []
    errors: list[LogError] = []
    for future in futures:
        try:
            done = future.get(timeout=max(0.0, deadline - time.monotonic()))
            placed.append(Placed(done.partition, done.offset))
        except KafkaError as e:
            errors.append(told(e, "write"))
    for error in sorted(errors, key=lambda e: e.retriable):
        raise error
    return placed
