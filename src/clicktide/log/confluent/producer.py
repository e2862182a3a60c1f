"""The producer on librdkafka: many threads send, one thread hears the acknowledgements.

What `send` answers was acknowledged by all in-sync replicas, written once for that call (idempotent).

A client that had to give up records is replaced before the next ones: it may have lost its brokers for good (docs/decisions/0003-the-log.md).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from clicktide.errors import LogError, LogUnavailable, UnknownTopic
from clicktide.log.confluent.client import GIVEN_UP, producer_conf, telling, told
from clicktide.log.kafka import Cluster
from clicktide.log.limits import check_sizes
from clicktide.log.port import Outgoing, Placed

_LISTEN_S = 0.2
_CLOSE_S = 5.0


class _Client:
    """librdkafka's producer, the thread that hears its acknowledgements, and whether it had to give up records."""

    def __init__(self, cluster: Cluster) -> None:
        self.spent = False
        self._closing = threading.Event()
        with telling("open a producer"):
            self.producer = Producer(producer_conf(cluster))
        self._listener = threading.Thread(target=self._listen, name="kafka-acks", daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        while not self._closing.is_set():
            self.producer.poll(_LISTEN_S)
        self.producer.poll(0)  # what was given up last

    def close(self, wait_s: float) -> None:
        """What is not written in `wait_s` is given up; its senders are told."""
        if wait_s > 0:
            self.producer.flush(wait_s)
        with contextlib.suppress(KafkaException, RuntimeError):
            self.producer.purge()
        self._closing.set()
        self._listener.join(_CLOSE_S)


class _Sending:
    """One call of `send`: counts its acknowledgements."""

    def __init__(self, client: _Client, count: int) -> None:
        self._client = client
        self.placed: list[Placed | None] = [None] * count
        self.errors: dict[int, LogError] = {}
        self._left = count
        self._done = threading.Event()

    def listener(self, index: int) -> Callable[[KafkaError | None, Any], None]:
        """What librdkafka calls when record `index` was written or given up."""

        def heard(error: KafkaError | None, message: Any) -> None:
            if error is None:
                self.placed[index] = Placed(message.partition(), message.offset())
            else:
                self.errors[index] = told(error, "write")
                if error.code() == GIVEN_UP or error.fatal():
                    self._client.spent = True
            # Only the listening thread counts, so this needs no lock.
            self._left -= 1
            if self._left == 0:
                self._done.set()

        return heard

    def wait(self, timeout_s: float) -> list[Placed]:
        """The answer; raises the error that says most about what to do next: a lasting one before one of the moment."""
        in_time = self._done.wait(max(0.0, timeout_s))
        for error in sorted(self.errors.values(), key=lambda e: e.retriable):
            raise error
        placed = [p for p in self.placed if p is not None]
        if not in_time or len(placed) < len(self.placed):
            raise LogUnavailable(
                f"Kafka: {len(self.placed) - len(placed)} of {len(self.placed)} records not acknowledged in time"
            )
        return placed


class ConfluentProducer:
    """`LogProducer` on librdkafka. Connects on use."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._lock = threading.Lock()
        self._client: _Client | None = None
        self._partitions: dict[str, int] = {}

    def send(self, records: Sequence[Outgoing], timeout_s: float) -> list[Placed]:
        deadline = time.monotonic() + timeout_s
        check_sizes(records)
        if not records:
            return []
        client = self._open()
        self._check_topics(client, records, deadline)
        sending = _Sending(client, len(records))
        try:
            for index, record in enumerate(records):
                _produce(client, record, sending.listener(index), deadline)
        except BufferError:
            raise LogUnavailable("Kafka: more records wait for the broker than are kept in memory") from None
        return sending.wait(deadline - time.monotonic())

    def _open(self) -> _Client:
        with self._lock:
            if self._client is not None and self._client.spent:
                self._client.close(0.0)
                self._client = None
            if self._client is None:
                self._client = _Client(self._cluster)
            return self._client

    def _check_topics(self, client: _Client, records: Sequence[Outgoing], deadline: float) -> None:
        """Raise `UnknownTopic` before anything is written: librdkafka itself would hold the record for long."""

        def unknown() -> str | None:
            for record in records:
                count = self._partitions.get(record.topic, 0)
                if (record.partition or 0) >= count:
                    return f"topic {record.topic} has {count} partitions, there is no {record.partition or 0}"
            return None

        if unknown() is None:
            return
        try:
            with telling("ask for the topics"):
                found = client.producer.list_topics(timeout=max(0.01, deadline - time.monotonic()))
        except LogUnavailable:
            client.spent = True
            raise
        self._partitions = {name: len(t.partitions) for name, t in found.topics.items() if t.error is None}
        for record in records:
            if record.topic not in self._partitions:
                raise UnknownTopic(f"topic {record.topic} does not exist")
        if (missing := unknown()) is not None:
            raise UnknownTopic(missing)

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close(_CLOSE_S)


def _produce(
    client: _Client, record: Outgoing, heard: Callable[[KafkaError | None, Any], None], deadline: float
) -> None:
    more: dict[str, Any] = {}
    if record.partition is not None:
        more["partition"] = record.partition
    if record.timestamp is not None:
        more["timestamp"] = record.timestamp
    if record.headers:
        more["headers"] = list(record.headers)
    while True:
        try:
            client.producer.produce(record.topic, record.value, record.key, on_delivery=heard, **more)
            return
        except BufferError:
            # The queue is full: the listening thread empties it as the broker answers.
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.005)
        except KafkaException as e:
            client.spent = client.spent or e.args[0].fatal()
            raise told(e.args[0], "write") from e
