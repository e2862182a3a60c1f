"""Topics of a Kafka cluster through librdkafka's admin client.

Every call ends within `REQUEST_TIMEOUT_S` or so, with `LogUnavailable` when the cluster does not answer.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from confluent_kafka import (
    KafkaError,
    KafkaException,
    TopicCollection,
)
from confluent_kafka import (
    TopicPartition as KafkaPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

from clicktide.errors import LogError, LogUnavailable, UnknownTopic
from clicktide.log.confluent.client import admin_conf, logger, telling
from clicktide.log.confluent.inquiry import Inquiry
from clicktide.log.kafka import Cluster, replication, topic_config, topic_id
from clicktide.log.limits import REQUEST_TIMEOUT_S, check_topic
from clicktide.log.port import TopicInfo, TopicPartition

_LOOK_AGAIN_S = 0.05
# Our own wait is a little longer than the client's, whose error says more.
_PATIENCE_S = REQUEST_TIMEOUT_S + 2
# Librdkafka wants a group for every consumer, also for one that joins none and stores nothing.
_GROUP = "clicktide-admin"


class ConfluentAdmin:
    """`LogAdmin` on librdkafka. Connects on use."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._admin: AdminClient | None = None
        self._groups: dict[str, Inquiry] = {}
        self._inquiry = Inquiry(cluster, _GROUP)

    def _client(self) -> AdminClient:
        if self._admin is None:
            with telling("open an admin client"):
                conf = admin_conf(self._cluster)
                conf.pop("logger")
                self._admin = AdminClient(conf, logger=logger)
        return self._admin

    def create_topics(self, topics: Mapping[str, int], retention_ms: int | None = None) -> None:
        for name, partitions in topics.items():
            check_topic(name, partitions)
        client = self._client()
        with self._replacing(), telling("ask for the topics", client):
            found = client.list_topics(timeout=REQUEST_TIMEOUT_S)
        missing = [
            NewTopic(name, partitions, replication(len(found.brokers)), config=topic_config(retention_ms))
            for name, partitions in topics.items()
            if name not in found.topics
        ]
        if missing:
            futures = self._client().create_topics(
                missing, operation_timeout=REQUEST_TIMEOUT_S, request_timeout=REQUEST_TIMEOUT_S
            )
            self._results(futures, "create topics", ignore={KafkaError.TOPIC_ALREADY_EXISTS})
        self._until(lambda counts: topics.keys() <= counts.keys(), "create topics")

    def add_partitions(self, topic: str, partitions: int) -> None:
        found = self.topics().get(topic)
        if found is None:
            raise UnknownTopic(f"topic {topic} does not exist")
        if partitions < found.partitions:
            raise LogError(f"topic {topic} has {found.partitions} partitions: it cannot have fewer")
        if partitions > found.partitions:
            futures = self._client().create_partitions(
                [NewPartitions(topic, partitions)], request_timeout=REQUEST_TIMEOUT_S
            )
            self._results(futures, f"add partitions to {topic}")
        self._until(lambda counts: counts.get(topic, 0) >= partitions, f"add partitions to {topic}")

    def delete_topics(self, topics: Sequence[str]) -> None:
        if topics:
            futures = self._client().delete_topics(
                list(set(topics)), operation_timeout=REQUEST_TIMEOUT_S, request_timeout=REQUEST_TIMEOUT_S
            )
            self._results(futures, "delete topics", ignore={KafkaError.UNKNOWN_TOPIC_OR_PART})
            self._until(lambda counts: not counts.keys() & set(topics), "delete topics")

    def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        bounds = self.bounds(list(before))
        # Kafka refuses an offset past the end; for us that means everything there is.
        wanted = [
            KafkaPartition(*p, min(offset, bounds[p][1]))
            for p, offset in before.items()
            if offset > bounds[p][0]
        ]
        if wanted:
            futures = self._client().delete_records(
                wanted, operation_timeout=REQUEST_TIMEOUT_S, request_timeout=REQUEST_TIMEOUT_S
            )
            self._results(futures, "delete records")

    def topics(self) -> dict[str, TopicInfo]:
        # Asked first: the admin client is not to wait for a broker that is away (see `inquiry`).
        names = sorted(self._inquiry.counts())
        if not names:
            return {}
        futures = self._client().describe_topics(TopicCollection(names), request_timeout=REQUEST_TIMEOUT_S)
        found = self._results(futures, "describe topics", ignore={KafkaError.UNKNOWN_TOPIC_OR_PART})
        return {name: TopicInfo(name, _id_of(t), len(t.partitions)) for name, t in found.items()}

    def bounds(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        return self._inquiry.bounds(partitions)

    def committed(self, group: str, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        if group not in self._groups:
            self._groups[group] = Inquiry(self._cluster, group)
        return self._groups[group].committed(partitions)

    def close(self) -> None:
        for group in self._groups.values():
            group.close()
        self._inquiry.close()
        self._groups.clear()
        # librdkafka's handle goes with its last reference; there is no explicit end.
        self._admin = None

    @contextlib.contextmanager
    def _replacing(self) -> Iterator[None]:
        """Another client for the next question when this one's fails: it may have lost its brokers for good."""
        try:
            yield
        except LogUnavailable:
            self._admin = None
            raise

    def _results(
        self, futures: Mapping[Any, Future[Any]], what: str, ignore: Iterable[int] = frozenset()
    ) -> dict[Any, Any]:
        with self._replacing():
            return _results(futures, what, ignore)

    def _until(self, true: Callable[[dict[str, int]], bool], what: str) -> None:
        """Wait until the brokers' metadata shows what the controller has answered already."""
        deadline = time.monotonic() + REQUEST_TIMEOUT_S
        while not true(self._inquiry.counts()):
            if time.monotonic() >= deadline:
                raise LogUnavailable(f"Kafka: {what}: not seen by the brokers in time")
            time.sleep(_LOOK_AGAIN_S)


def _id_of(topic: Any) -> str:
    uuid = topic.topic_id
    low = uuid.get_least_significant_bits() & ((1 << 64) - 1)
    return topic_id(uuid.get_most_significant_bits() << 64 | low)


def _results(
    futures: Mapping[Any, Future[Any]], what: str, ignore: Iterable[int] = frozenset()
) -> dict[Any, Any]:
    """The answers by what was asked for, without those whose error is ignored; raises the first other error."""
    found = {}
    deadline = time.monotonic() + _PATIENCE_S
    for key, future in futures.items():
        with telling(what), contextlib.suppress(_Ignored):
            try:
                found[key] = future.result(max(0.0, deadline - time.monotonic()))
            except KafkaException as e:
                if e.args[0].code() in ignore:
                    raise _Ignored from e
                raise
    return found


class _Ignored(Exception):
    """An error that says that nothing was left to do."""
