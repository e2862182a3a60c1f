"""The log on Kafka through confluent-kafka (librdkafka): the fast adapter.

Promises what the port says; see docs/decisions/0003-the-log.md for the settings chosen and why.
"""

from __future__ import annotations

from clicktide.log.confluent.admin import ConfluentAdmin
from clicktide.log.confluent.consumer import ConfluentConsumer
from clicktide.log.confluent.producer import ConfluentProducer
from clicktide.log.kafka import Cluster
from clicktide.settings import Settings

__all__ = ["ConfluentLog"]


class ConfluentLog:
    """`Log` on a Kafka cluster. Connects on use."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    @classmethod
    def of(cls, settings: Settings) -> ConfluentLog:
        """The log of the `kafka.*` settings."""
        return cls(Cluster.of(settings))

    def consumer(self, group: str) -> ConfluentConsumer:
        return ConfluentConsumer(self._cluster, group)

    def producer(self) -> ConfluentProducer:
        return ConfluentProducer(self._cluster)

    def admin(self) -> ConfluentAdmin:
        return ConfluentAdmin(self._cluster)
