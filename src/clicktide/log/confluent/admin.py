"""Topics of a Kafka cluster through librdkafka's admin client.

Every call ends within `REQUEST_TIMEOUT_S` or so, with `LogUnavailable` when the cluster does not answer.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import confluent_kafka.admin
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
from clicktide.log.confluent.offsets import GroupOffsets
from clicktide.log.kafka import Cluster, replication, shown, topic_config, topic_id
from clicktide.log.limits import REQUEST_TIMEOUT_S, check_topic
from clicktide.log.port import TopicInfo, TopicPartition

_LOOK_AGAIN_S = 0.05
_PROBE_S = 2.0
_spec: Any = vars(confluent_kafka.admin)["OffsetSpec"]  # exported, but not in the types
_MOVING = {KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE}
_BOUNDS = (_spec.earliest(), _spec.latest())
# Our own wait is a little longer than the client's, whose error says more.
_PATIENCE_S = REQUEST_TIMEOUT_S + 2


class ConfluentAdmin:
    """`LogAdmin` on librdkafka. Connects on use."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._admin: AdminClient | None = None
        self._groups: dict[str, GroupOffsets] = {}

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
        with telling("ask for the topics"):
            found = self._client().list_topics(timeout=REQUEST_TIMEOUT_S)
        missing = [
            NewTopic(name, partitions, replication(len(found.brokers)), config=topic_config(retention_ms))
            for name, partitions in topics.items()
            if name not in found.topics
        ]
        if missing:
            futures = self._client().create_topics(
                missing, operation_timeout=REQUEST_TIMEOUT_S, request_timeout=REQUEST_TIMEOUT_S
            )
            _results(futures, "create topics", ignore={KafkaError.TOPIC_ALREADY_EXISTS})
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
            _results(futures, f"add partitions to {topic}")
        self._until(lambda counts: counts.get(topic, 0) >= partitions, f"add partitions to {topic}")

    def delete_topics(self, topics: Sequence[str]) -> None:
        if topics:
            futures = self._client().delete_topics(
                list(set(topics)), operation_timeout=REQUEST_TIMEOUT_S, request_timeout=REQUEST_TIMEOUT_S
            )
            _results(futures, "delete topics", ignore={KafkaError.UNKNOWN_TOPIC_OR_PART})
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
            _results(futures, "delete records")

    def topics(self) -> dict[str, TopicInfo]:
        names = sorted(self._counts())
        if not names:
            return {}
        futures = self._client().describe_topics(TopicCollection(names), request_timeout=REQUEST_TIMEOUT_S)
        found = _results(futures, "describe topics", ignore={KafkaError.UNKNOWN_TOPIC_OR_PART})
        return {name: TopicInfo(name, _id_of(t), len(t.partitions)) for name, t in found.items()}

    def bounds(
        self, partitions: Sequence[TopicPartition], timeout_s: float = REQUEST_TIMEOUT_S
    ) -> dict[TopicPartition, tuple[int, int]]:
        if not partitions:
            return {}
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                earliest, end = self._ask_bounds(partitions, deadline)
                break
            except LogUnavailable as e:
                # "No leaders found" is all it says of a partition that does not exist.
                counts = self._counts(_left(deadline))
                for p in partitions:
                    if not 0 <= p.partition < counts.get(p.topic, 0):
                        raise UnknownTopic(f"{p.topic}:{p.partition} does not exist") from None
                # A topic just made has no leader yet, or another than its former self.
                if not _is_moving(e) or time.monotonic() + _LOOK_AGAIN_S >= deadline:
                    raise
            time.sleep(_LOOK_AGAIN_S)
        if min(*earliest.values(), *end.values()) < 0:
            # A leader that does not answer in time leaves the offset out, and that is all.
            raise LogUnavailable("Kafka: ask for offsets: no answer in time")
        return {p: (earliest[p], end[p]) for p in partitions}

    def _ask_bounds(
        self, partitions: Sequence[TopicPartition], deadline: float
    ) -> tuple[dict[tuple[str, int], int], dict[tuple[str, int], int]]:
        lists = [
            self._client().list_offsets(
                {KafkaPartition(*p): spec for p in partitions}, request_timeout=_left(deadline)
            )
            for spec in _BOUNDS
        ]
        earliest, end = (
            {(p.topic, p.partition): r.offset for p, r in _results(futures, "ask for offsets").items()}
            for futures in lists
        )
        return earliest, end

    def committed(self, group: str, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        if group not in self._groups:
            self._groups[group] = GroupOffsets(self._cluster, group)
        return self._groups[group].committed(partitions)

    def probe(self) -> Future[Any]:
        """Ask the cluster for something small; the future ends within seconds."""
        with telling("ask for the cluster"):
            return self._client().describe_cluster(request_timeout=_PROBE_S)

    def close(self) -> None:
        for group in self._groups.values():
            group.close()
        self._groups.clear()
        # librdkafka's handle goes with its last reference; there is no explicit end.
        self._admin = None

    def _counts(self, timeout_s: float = REQUEST_TIMEOUT_S) -> dict[str, int]:
        with telling("ask for the topics"):
            found = self._client().list_topics(timeout=timeout_s)
        return {
            name: len(t.partitions) for name, t in found.topics.items() if shown(name) and t.error is None
        }

    def _until(self, true: Callable[[dict[str, int]], bool], what: str) -> None:
        """Wait until the brokers' metadata shows what the controller has answered already."""
        deadline = time.monotonic() + REQUEST_TIMEOUT_S
        while not true(self._counts()):
            if time.monotonic() >= deadline:
                raise LogUnavailable(f"Kafka: {what}: not seen by the brokers in time")
            time.sleep(_LOOK_AGAIN_S)


def _id_of(topic: Any) -> str:
    uuid = topic.topic_id
    low = uuid.get_least_significant_bits() & ((1 << 64) - 1)
    return topic_id(uuid.get_most_significant_bits() << 64 | low)


def _left(deadline: float) -> float:
    """Seconds to the deadline, at least what the client takes for a timeout."""
    return max(0.01, deadline - time.monotonic())


def _is_moving(error: LogUnavailable) -> bool:
    cause = error.__cause__
    return isinstance(cause, KafkaException) and cause.args[0].code() in _MOVING


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
