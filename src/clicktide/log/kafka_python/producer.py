"""The producer on kafka-python: its sender thread writes, callers wait for their acknowledgements.

What `send` answers was acknowledged by all in-sync replicas, written once for that call (idempotent).

A client that had to give up records is replaced: one that is idempotent drops its id when a record that it has sent before is too old to
be sent again, and never asks for another (kafka-python 3.0.12, `TransactionManager.init_producer_id`), so nothing that it is given is written any more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError

from clicktide.errors import LogError, LogUnavailable, UnknownTopic
from clicktide.log.kafka import Cluster
from clicktide.log.kafka_python.admin import KafkaPythonAdmin
from clicktide.log.kafka_python.client import common, opened, telling, told
from clicktide.log.limits import GIVE_UP_S, MAX_RECORD_BYTES, check_sizes
from clicktide.log.port import Outgoing, Placed

_CLOSE_S = 5.0
# A send may take so much longer than its timeout when it has to ask for a topic and nobody answers.
_LOOK_UP_S = 3.0
# Brokers that have just answered are given so long, however little the question left of the timeout.
_CONNECT_S = 1.0


@dataclass(slots=True, eq=False)
class _Client:
    """kafka-python's own producer, and whether it had to give up records."""

    producer: Any
    spent: bool = False

    def give_up(self, _error: BaseException) -> None:
        self.spent = True


class KafkaPythonProducer:
    """`LogProducer` on kafka-python. Connects on use."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._admin = KafkaPythonAdmin(cluster, _LOOK_UP_S)
        self._lock = threading.Lock()
        self._client: _Client | None = None
        self._partitions: dict[str, int] = {}

    def send(self, records: Sequence[Outgoing], timeout_s: float) -> list[Placed]:
        deadline = time.monotonic() + timeout_s
        check_sizes(records)
        if not records:
            return []
        client = self._open(records, deadline)
        with telling("write"):
            try:
                futures = [_write(client.producer, record) for record in records]
            except ValueError as e:
                # Its metadata does not show the partition yet.
                raise LogUnavailable(f"Kafka: write: {e}") from e
        try:
            return _wait(futures, deadline)
        except LogUnavailable:
            for future in futures:
                # Also of those that are given up later, when nobody waits for them any more.
                future.add_errback(client.give_up)
            raise

    def _open(self, records: Sequence[Outgoing], deadline: float) -> _Client:
        """A client that knows the partitions these records need; raises `UnknownTopic` where none can."""
        needed = {r.topic: 0 for r in records}
        for r in records:
            needed[r.topic] = max(needed[r.topic], r.partition or 0)
        with self._held(deadline):
            known = all(self._partitions.get(topic, 0) > p for topic, p in needed.items())
            spent = self._client is not None and self._client.spent
            if spent:
                self._forget_admin()
                self._look_up(needed)  # a new client only for brokers that answer
                self._drop(0.0)
            elif not known and self._look_up(needed):
                # It would learn of the new partitions only when its metadata is old.
                self._drop(_CLOSE_S)
            if self._client is None:
                with telling("open a producer"):
                    left_s = max(_CONNECT_S, deadline - time.monotonic())
                    self._client = _Client(opened(KafkaProducer, _conf(self._cluster, left_s)))
            return self._client

    def _forget_admin(self) -> None:
        """The next question opens a connection: the first one of a client is bounded, a later one takes up to half a minute."""
        self._admin.close()

    @contextmanager
    def _held(self, deadline: float) -> Iterator[None]:
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise LogUnavailable("Kafka: write: no connection in time")
        try:
            yield
        finally:
            self._lock.release()

    def _drop(self, wait_s: float) -> None:
        """End the client; those who still wait for its records `wait_s` from now are told that it is unavailable."""
        client, self._client = self._client, None
        if client is None:
            return
        try:
            client.producer.close(timeout=wait_s)
        except KafkaError:
            # It could not write all, and then does not end its thread by itself.
            client.producer._sender.force_close()  # noqa: SLF001 - there is no public way
            with suppress(KafkaError):
                client.producer.close(timeout=_CLOSE_S)

    def _look_up(self, needed: dict[str, int]) -> bool:
        """Ask for the topics; True when one that was known has grown."""
        try:
            before, self._partitions = self._partitions, self._admin.counts()
        except LogUnavailable:
            self._forget_admin()
            raise
        for topic, partition in needed.items():
            count = self._partitions.get(topic)
            if count is None:
                raise UnknownTopic(f"topic {topic} does not exist")
            if partition >= count:
                raise UnknownTopic(f"topic {topic} has {count} partitions, there is no {partition}")
        return any(self._partitions.get(topic, count) > count for topic, count in before.items())

    def close(self) -> None:
        with self._lock:
            self._drop(_CLOSE_S)
            self._admin.close()


def _conf(cluster: Cluster, timeout_s: float) -> dict[str, Any]:
    return common(cluster, timeout_s) | {
        "acks": "all",
        "enable_idempotence": True,
        "linger_ms": 2,
        "batch_size": 256 * 1024,
        "max_request_size": MAX_RECORD_BYTES + 48_576,
        "delivery_timeout_ms": int(GIVE_UP_S * 1000),
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
