"""Topics of a Kafka cluster through kafka-python's admin client.

Every call ends within `REQUEST_TIMEOUT_S` or so, with `LogUnavailable` when the cluster does not answer.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kafka import KafkaAdminClient
from kafka import TopicPartition as KafkaPartition
from kafka.admin import OffsetSpec
from kafka.errors import (
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    NotCoordinatorError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
)

from clicktide.errors import LogError, LogUnavailable, UnknownTopic
from clicktide.log.kafka import Cluster, replication, shown, topic_config, topic_id
from clicktide.log.kafka_python.client import common, opened, telling
from clicktide.log.limits import REQUEST_TIMEOUT_S, check_topic
from clicktide.log.port import TopicInfo, TopicPartition

_LOOK_AGAIN_S = 0.05
# What a cluster answers that is about to have a coordinator: a new one makes its topic of offsets at the first
# question, and after a failover the next broker has to read it. The consumer waits for that itself, the admin
# client does not.
_COORDINATOR_TO_COME = (CoordinatorLoadInProgressError, CoordinatorNotAvailableError, NotCoordinatorError)


class KafkaPythonAdmin:
    """`LogAdmin` on kafka-python. Connects on use."""

    def __init__(self, cluster: Cluster, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        self._cluster = cluster
        self._timeout_s = timeout_s
        self._admin: Any = None

    def _client(self) -> Any:
        if self._admin is None:
            self._admin = opened(KafkaAdminClient, common(self._cluster, self._timeout_s, self._timeout_s))
        return self._admin

    def create_topics(self, topics: Mapping[str, int], retention_ms: int | None = None) -> None:
        for name, partitions in topics.items():
            check_topic(name, partitions)
        existing = self.topics()
        missing = {name: partitions for name, partitions in topics.items() if name not in existing}
        with telling("create topics"):
            brokers = len(self._client().describe_cluster()["brokers"]) if missing else 0
            # One by one: the client raises the first error of all, and one that exists by now is none.
            for name, partitions in missing.items():
                data = {
                    "num_partitions": partitions,
                    "replication_factor": replication(brokers),
                    "configs": topic_config(retention_ms),
                }
                try:
                    self._client().create_topics({name: data}, timeout_ms=int(REQUEST_TIMEOUT_S * 1000))
                except TopicAlreadyExistsError:
                    continue
        self._until(lambda counts: topics.keys() <= counts.keys(), "create topics")

    def add_partitions(self, topic: str, partitions: int) -> None:
        found = self.topics().get(topic)
        if found is None:
            raise UnknownTopic(f"topic {topic} does not exist")
        if partitions < found.partitions:
            raise LogError(f"topic {topic} has {found.partitions} partitions: it cannot have fewer")
        if partitions > found.partitions:
            with telling(f"add partitions to {topic}"):
                self._client().create_partitions(
                    {topic: partitions}, timeout_ms=int(REQUEST_TIMEOUT_S * 1000)
                )
        self._until(lambda counts: counts.get(topic, 0) >= partitions, f"add partitions to {topic}")

    def delete_topics(self, topics: Sequence[str]) -> None:
        existing = self.topics() if topics else {}
        for name in {name for name in topics if name in existing}:
            with telling("delete topics"):
                try:
                    self._client().delete_topics([name], timeout_ms=int(REQUEST_TIMEOUT_S * 1000))
                except UnknownTopicOrPartitionError:
                    continue
        if topics:
            self._until(lambda counts: not counts.keys() & set(topics), "delete topics")

    def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        bounds = self.bounds(list(before))
        # Kafka refuses an offset past the end; for us that means everything there is.
        wanted = {
            KafkaPartition(*p): min(offset, bounds[p][1])
            for p, offset in before.items()
            if offset > bounds[p][0]
        }
        if wanted:
            with telling("delete records"):
                self._client().delete_records(wanted, timeout_ms=int(REQUEST_TIMEOUT_S * 1000))

    def topics(self) -> dict[str, TopicInfo]:
        with telling("ask for the topics"):
            found = self._client().describe_topics()
        return {
            t["name"]: TopicInfo(t["name"], topic_id(uuid.UUID(str(t["topic_id"])).int), len(t["partitions"]))
            for t in found
            if shown(t["name"]) and t["error_code"] == 0
        }

    def bounds(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        if not partitions:
            return {}
        with telling("ask for offsets"):
            earliest, end = (
                self._client().list_partition_offsets({KafkaPartition(*p): spec for p in partitions})
                for spec in (OffsetSpec.EARLIEST, OffsetSpec.LATEST)
            )
        return {p: (earliest[p].offset, end[p].offset) for p in partitions}

    def committed(self, group: str, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        if not partitions:
            return {}
        asked = {group: [KafkaPartition(*p) for p in partitions]}
        deadline = time.monotonic() + REQUEST_TIMEOUT_S
        with telling(f"ask for the offsets of group {group}"):
            while True:
                try:
                    found = self._client().list_group_offsets(asked)
                    break
                except _COORDINATOR_TO_COME:
                    if time.monotonic() >= deadline:
                        raise
                    # The client remembers a coordinator for ever, also one that is none any more.
                    self.close()
                    time.sleep(_LOOK_AGAIN_S)
        return {TopicPartition(*p): o.offset for p, o in found[group].items() if o.offset >= 0}

    def counts(self) -> dict[str, int]:
        """Partitions of each topic."""
        return {name: t.partitions for name, t in self.topics().items()}

    def close(self) -> None:
        admin, self._admin = self._admin, None
        if admin is not None:
            admin.close()

    def _until(self, true: Callable[[dict[str, int]], bool], what: str) -> None:
        """Wait until the brokers' metadata shows what the controller has answered already."""
        deadline = time.monotonic() + REQUEST_TIMEOUT_S
        while not true(self.counts()):
            if time.monotonic() >= deadline:
                raise LogUnavailable(f"Kafka: {what}: not seen by the brokers in time")
            time.sleep(_LOOK_AGAIN_S)
