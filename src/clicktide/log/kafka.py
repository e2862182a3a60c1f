"""What both Kafka clients share: how the settings name the cluster, and how a topic is made there.

Imports no client, so that one adapter never needs the other's library.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from clicktide.errors import SettingError
from clicktide.settings import Settings

# Found at most so much later: a partition that was added, a broker that came back.
METADATA_MAX_AGE_S = 10
RECONNECT_BACKOFF_MS = (50, 1000)
# How long an empty fetch waits at the broker. Records wake it at once; a partition just resumed waits for it.
FETCH_WAIT_MS = 50


@dataclass(frozen=True, slots=True)
class Cluster:
    """How to reach a Kafka cluster; empty text where nothing is set."""

    bootstrap: str
    security: str
    sasl_mechanism: str
    username: str
    password: str
    ca_file: str

    @classmethod
    def of(cls, settings: Settings) -> Cluster:
        """The cluster of the `kafka.*` settings; raises `SettingError` when they do not fit each other."""
        cluster = cls(
            bootstrap=settings.text("kafka.bootstrap"),
            security=settings.text("kafka.security"),
            sasl_mechanism=settings.text("kafka.sasl_mechanism"),
            username=settings.text("kafka.username"),
            password=settings.text("kafka.password"),
            ca_file=settings.text("kafka.ca_file"),
        )
        if cluster.sasl and cluster.sasl_mechanism not in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
            raise SettingError(
                f"setting kafka.sasl_mechanism: expected PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"
                f" with {cluster.security}, got {cluster.sasl_mechanism!r}"
            )
        return cluster

    @property
    def sasl(self) -> bool:
        return self.security.startswith("SASL")

    @property
    def tls(self) -> bool:
        return self.security.endswith("SSL")


def topic_config(retention_ms: int | None) -> dict[str, str]:
    """Configuration of a topic that is made; what is not said is the broker's default."""
    return {} if retention_ms is None else {"retention.ms": str(retention_ms)}


def replication(brokers: int) -> int:
    """Replicas of a topic: three where there are as many brokers."""
    return max(1, min(3, brokers))


def topic_id(number: int) -> str:
    """A topic's 128-bit id as 32 hex digits, whatever sign the client gave it."""
    return uuid.UUID(int=number & ((1 << 128) - 1)).hex


def shown(topic: str) -> bool:
    """Whether a topic is one of somebody's own, not the broker's book-keeping."""
    return not topic.startswith("__")
