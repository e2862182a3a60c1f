"""Asks the cluster about offsets and topics, and stores a group's offsets, through a consumer that never reads.

A handle whose question failed is replaced before the next: it may have lost its brokers for good (docs/decisions/0003-the-log.md).

Its own handle, because a commit's answer comes with `poll`, which must not bring records. And not librdkafka's admin
client: requests of its that wait for a broker which is away can abort the whole process when it comes back (seen with
2.16). Every call ends in time; a synchronous commit, for one, would wait for as long as the broker is away.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from clicktide.errors import LogError, LogUnavailable, UnknownTopic
from clicktide.log.confluent.client import UNKNOWN_TOPIC, consumer_conf, telling, told
from clicktide.log.kafka import Cluster, shown
from clicktide.log.limits import REQUEST_TIMEOUT_S
from clicktide.log.port import TopicPartition

_LISTEN_S = 0.1
_LOOK_AGAIN_S = 0.05
_MOVING = {KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE} | UNKNOWN_TOPIC


class _Handle:
    """A consumer that never reads, and the commits that it was asked for and has answered."""

    def __init__(self, cluster: Cluster, group: str) -> None:
        # Answers come in the order of the commits, also those that nobody waits for any more.
        self.asked = self.answered = 0
        self.error: KafkaError | None = None
        with telling("open a consumer"):
            self.consumer = Consumer(consumer_conf(cluster, group) | {"on_commit": self._heard})

    def _heard(self, error: KafkaError | None, partitions: Sequence[Any]) -> None:
        refused = next((p.error for p in partitions if p.error is not None), None)
        self.answered += 1
        self.error = error if error is not None else refused

    def abandon(self) -> None:
        """End it without waiting: a commit without an answer holds up its end for up to a minute."""
        if self.asked > self.answered:
            threading.Thread(target=self.consumer.close, name="kafka-abandoned", daemon=True).start()


class Inquiry:
    """Questions to the cluster in the name of one group. Connects on use; for one thread at a time."""

    def __init__(self, cluster: Cluster, group: str) -> None:
        self._cluster = cluster
        self._group = group
        self._handle: _Handle | None = None

    @contextmanager
    def _asking(self, what: str) -> Iterator[_Handle]:
        """The handle to ask by."""
        if self._handle is None:
            self._handle = _Handle(self._cluster, self._group)
        handle = self._handle
        try:
            with telling(what, handle.consumer):
                yield handle
        except LogUnavailable as e:
            if not _is_moving(e):
                handle.abandon()
                self._handle = None
            raise

    def committed(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """As `LogConsumer.committed`."""
        if not partitions:
            return {}
        what = f"ask for the offsets of group {self._group}"
        with self._asking(what) as handle:
            answer = handle.consumer.committed(
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
        """As `LogConsumer.commit`; one that got no answer in time may still be stored, even after a later one."""
        if not offsets:
            return
        what = f"commit offsets of group {self._group}"
        deadline = time.monotonic() + REQUEST_TIMEOUT_S
        with self._asking(what) as handle:
            handle.consumer.commit(
                offsets=[KafkaPartition(*p, offset) for p, offset in offsets.items()], asynchronous=True
            )
            handle.asked += 1
            while handle.answered < handle.asked:
                if time.monotonic() >= deadline:
                    raise LogUnavailable(f"Kafka: {what}: no answer in time")
                handle.consumer.poll(_LISTEN_S)
            if handle.error is not None:
                raise told(handle.error, what)

    def counts(self, timeout_s: float = REQUEST_TIMEOUT_S) -> dict[str, int]:
        """Partitions of each topic."""
        with self._asking("ask for the topics") as handle:
            found = handle.consumer.list_topics(timeout=timeout_s)
            if not found.brokers:
                raise LogUnavailable("Kafka: ask for the topics: no broker is there yet")
        return {
            name: len(t.partitions) for name, t in found.topics.items() if shown(name) and t.error is None
        }

    def bounds(
        self, partitions: Sequence[TopicPartition], timeout_s: float = REQUEST_TIMEOUT_S
    ) -> dict[TopicPartition, tuple[int, int]]:
        """As `LogConsumer.bounds`."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                return {p: self._bounds_of(p, deadline) for p in partitions}
            except (LogUnavailable, UnknownTopic) as e:
                # The client's word for a partition without a leader is the same, existing or not.
                self._check_exist(partitions, deadline)
                if not _is_moving(e) or time.monotonic() + _LOOK_AGAIN_S >= deadline:
                    raise LogUnavailable(str(e)) from e
            time.sleep(_LOOK_AGAIN_S)

    def _bounds_of(self, partition: TopicPartition, deadline: float) -> tuple[int, int]:
        with self._asking("ask for offsets") as handle:
            found = handle.consumer.get_watermark_offsets(
                KafkaPartition(*partition), timeout=_left(deadline), cached=False
            )
            if found is None or min(found) < 0:
                raise LogUnavailable("Kafka: ask for offsets: no answer in time")
        return int(found[0]), int(found[1])

    def _check_exist(self, partitions: Sequence[TopicPartition], deadline: float) -> None:
        counts = self.counts(_left(deadline))
        for p in partitions:
            if not 0 <= p.partition < counts.get(p.topic, 0):
                raise UnknownTopic(f"{p.topic}:{p.partition} does not exist")

    def close(self) -> None:
        """End the handle; the next use opens another."""
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.consumer.close()


def _left(deadline: float) -> float:
    """Seconds to the deadline, at least what the client takes for a timeout."""
    return max(0.01, deadline - time.monotonic())


def _is_moving(error: LogError) -> bool:
    """A partition just made has no leader yet, or another than its topic's former self."""
    cause = error.__cause__
    return isinstance(cause, KafkaException) and cause.args[0].code() in _MOVING
