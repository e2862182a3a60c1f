"""The log on Kafka through kafka-python: pure Python, runs where no wheel of librdkafka does.

Promises what the port says; see docs/decisions/0003-the-log.md for when to take it.
"""

from __future__ import annotations

from clicktide.log.kafka import Cluster
from clicktide.log.kafka_python.admin import KafkaPythonAdmin
from clicktide.log.kafka_python.consumer import KafkaPythonConsumer
from clicktide.log.kafka_python.producer import KafkaPythonProducer
from clicktide.settings import Settings

__all__ = ["KafkaPythonLog"]


class KafkaPythonLog:
    """`Log` on a Kafka cluster. Connects on use."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    @classmethod
    def of(cls, settings: Settings) -> KafkaPythonLog:
        """The log of the `kafka.*` settings."""
        return cls(Cluster.of(settings))

    def consumer(self, group: str) -> KafkaPythonConsumer:
        return KafkaPythonConsumer(self._cluster, group)

    def producer(self) -> KafkaPythonProducer:
        return KafkaPythonProducer(self._cluster)

    def admin(self) -> KafkaPythonAdmin:
        return KafkaPythonAdmin(self._cluster)
