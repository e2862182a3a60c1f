"""A group's committed offsets, through a librdkafka consumer that never reads.

Its own handle, because a commit's answer comes with `poll`, which must not bring records. The admin client could do
the same, but its coordinator requests abort the whole process when a broker comes back (librdkafka 2.16). And a
synchronous commit waits for a broker that is away for as long as that takes; this one ends in time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError
from confluent_kafka import TopicPartition as KafkaPartition

from clicktide.errors import LogUnavailable
from clicktide.log.confluent.client import consumer_conf, telling, told
from clicktide.log.kafka import Cluster
from clicktide.log.limits import REQUEST_TIMEOUT_S
from clicktide.log.port import TopicPartition

_LISTEN_S = 0.1


class GroupOffsets:
    """Reads and stores the offsets of one group. Connects on use; for one thread at a time."""

    def __init__(self, cluster: Cluster, group: str) -> None:
        self._cluster = cluster
        self._group = group
        self._handle: Consumer | None = None
        # Answers come in the order of the commits, also those that nobody waits for any more.
        self._asked = self._answered = 0
        self._error: KafkaError | None = None

    def _open(self) -> Consumer:
        if self._handle is None:
            conf = consumer_conf(self._cluster, self._group)
            conf["on_commit"] = self._heard
            with telling("open a consumer"):
                self._handle = Consumer(conf)
            self._asked = self._answered = 0
        return self._handle

    def _heard(self, error: KafkaError | None, partitions: Sequence[Any]) -> None:
        refused = next((p.error for p in partitions if p.error is not None), None)
        self._answered += 1
        self._error = error if error is not None else refused

    def committed(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """As `LogConsumer.committed`."""
        if not partitions:
            return {}
        what = f"ask for the offsets of group {self._group}"
        with telling(what):
            answer = self._open().committed(
                [KafkaPartition(*p) for p in partitions], timeout=REQUEST_TIMEOUT_S
            )
        found = {}
        for p in answer:
            if p.error is not None and p.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise told(p.error, what)
            if p.offset >= 0:
                found[TopicPartition(p.topic, p.partition)] = p.offset
        return found

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """As `LogConsumer.commit`; one that got no answer in time may still be stored, before any later one."""
        if not offsets:
            return
        what = f"commit offsets of group {self._group}"
        deadline = time.monotonic() + REQUEST_TIMEOUT_S
        with telling(what):
            handle = self._open()
            handle.commit(
                offsets=[KafkaPartition(*p, offset) for p, offset in offsets.items()], asynchronous=True
            )
            self._asked += 1
            while self._answered < self._asked:
                if time.monotonic() >= deadline:
                    raise LogUnavailable(f"Kafka: {what}: no answer in time")
                handle.poll(_LISTEN_S)
        if self._error is not None:
            raise told(self._error, what)

    def close(self) -> None:
        """End the handle; the next use opens another."""
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.close()
