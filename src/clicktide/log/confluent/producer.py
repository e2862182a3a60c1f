"""The producer on librdkafka: many threads send, one thread hears the acknowledgements.

What `send` answers was acknowledged by all in-sync replicas, written once for that call (idempotent).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from clicktide.errors import LogError, LogUnavailable, UnknownTopic
from clicktide.log.confluent.client import producer_conf, telling, told
from clicktide.log.kafka import Cluster
from clicktide.log.limits import check_sizes
from clicktide.log.port import Outgoing, Placed

_LISTEN_S = 0.2
_CLOSE_S = 5.0


class _Sending:
    """One call of `send`: counts its acknowledgements."""

    def __init__(self, count: int) -> None:
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
        self._producer: Producer | None = None
        self._listener: threading.Thread | None = None
        self._closing = threading.Event()
        self._partitions: dict[str, int] = {}

    def send(self, records: Sequence[Outgoing], timeout_s: float) -> list[Placed]:
        deadline = time.monotonic() + timeout_s
        check_sizes(records)
        if not records:
            return []
        producer = self._open()
        self._check_topics(producer, records, deadline)
        sending = _Sending(len(records))
        try:
            for index, record in enumerate(records):
                _produce(producer, record, sending.listener(index), deadline)
        except BufferError:
            raise LogUnavailable("Kafka: more records wait for the broker than are kept in memory") from None
        return sending.wait(deadline - time.monotonic())

    def _open(self) -> Producer:
        with self._lock:
            if self._producer is None:
                with telling("open a producer"):
                    self._producer = Producer(producer_conf(self._cluster))
                self._closing.clear()
                self._listener = threading.Thread(
                    target=_listen, args=(self._producer, self._closing), name="kafka-acks", daemon=True
                )
                self._listener.start()
            return self._producer

    def _check_topics(self, producer: Producer, records: Sequence[Outgoing], deadline: float) -> None:
        """Raise `UnknownTopic` before anything is written: librdkafka itself would hold the record for long."""

        def unknown() -> str | None:
            for record in records:
                count = self._partitions.get(record.topic, 0)
                if (record.partition or 0) >= count:
                    return f"topic {record.topic} has {count} partitions, there is no {record.partition or 0}"
            return None

        if unknown() is None:
            return
        with telling("ask for the topics"):
            found = producer.list_topics(timeout=max(0.01, deadline - time.monotonic()))
        self._partitions = {name: len(t.partitions) for name, t in found.topics.items() if t.error is None}
        for record in records:
            if record.topic not in self._partitions:
                raise UnknownTopic(f"topic {record.topic} does not exist")
        if (missing := unknown()) is not None:
            raise UnknownTopic(missing)

    def close(self) -> None:
        with self._lock:
            producer, self._producer = self._producer, None
            listener, self._listener = self._listener, None
        if producer is None or listener is None:
            return
        producer.flush(_CLOSE_S)
        self._closing.set()
        listener.join(_CLOSE_S)
        with contextlib.suppress(KafkaException, RuntimeError):
            producer.purge()


def _produce(
    producer: Producer, record: Outgoing, heard: Callable[[KafkaError | None, Any], None], deadline: float
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
            producer.produce(record.topic, record.value, record.key, on_delivery=heard, **more)
            return
        except BufferError:
            # The queue is full: the listening thread empties it as the broker answers.
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.005)
        except KafkaException as e:
            raise told(e.args[0], "write") from e


def _listen(producer: Producer, closing: threading.Event) -> None:
    while not closing.is_set():
        producer.poll(_LISTEN_S)
