"""librdkafka's configuration, and what its errors mean to us.

Everything is bounded: sizes of queues, waits, back-offs. What is not known to be lasting counts as retriable.
"""

# ruff: noqa: SLF001 (librdkafka's own errors are public, their names begin with an underscore)

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from clicktide.errors import LogError, LogUnavailable, RecordTooLarge, UnknownTopic
from clicktide.log.kafka import FETCH_WAIT_MS, METADATA_MAX_AGE_S, RECONNECT_BACKOFF_MS, Cluster
from clicktide.log.limits import GIVE_UP_S, MAX_RECORD_BYTES, REQUEST_TIMEOUT_S
from clicktide.log.refusals import Refusals

# librdkafka writes to stderr otherwise; whoever wants its words configures this logger.
logger = logging.getLogger("clicktide.log.confluent")
logger.addHandler(logging.NullHandler())

ALL_BROKERS_DOWN: int = KafkaError._ALL_BROKERS_DOWN
PARTITION_EOF: int = KafkaError._PARTITION_EOF
OUT_OF_RANGE = {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}
GIVEN_UP: int = KafkaError._MSG_TIMED_OUT
NO_ACCESS = {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._SSL}

refusals = Refusals()


def heard(error: KafkaError) -> None:
    """librdkafka's word that is not one call's: kept when it says why there is no way in."""
    if error.code() in NO_ACCESS:
        refusals.note(error.str())


UNKNOWN_TOPIC = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.UNKNOWN_TOPIC_ID,
}
_WORDS = 20
_TOO_LARGE = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE}
_LASTING = {
    *NO_ACCESS,
    KafkaError._INVALID_ARG,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.INVALID_CONFIG,
    KafkaError.INVALID_GROUP_ID,
    KafkaError.INVALID_PARTITIONS,
    KafkaError.INVALID_REPLICATION_FACTOR,
    KafkaError.INVALID_TIMESTAMP,
    KafkaError.POLICY_VIOLATION,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_EXCEPTION,
    KafkaError.UNSUPPORTED_SASL_MECHANISM,
}


def told(error: KafkaError | None, what: str) -> LogError:
    """librdkafka's error as the log's; `what` says what was tried."""
    if error is None:
        return LogUnavailable(f"Kafka: {what} failed")
    text = f"Kafka: {what}: {error.str()}"
    if error.code() in UNKNOWN_TOPIC:
        return UnknownTopic(text)
    if error.code() in _TOO_LARGE:
        return RecordTooLarge(text)
    return LogError(text) if error.code() in _LASTING else LogUnavailable(refusals.with_reason(text))


@contextmanager
def telling(what: str, handle: Any = None) -> Iterator[None]:
    """Raise librdkafka's exceptions, and those of a future that is late, as the log's.

    `handle` is a client that nobody polls otherwise: what it has to say of its brokers is heard first.
    """
    try:
        yield
    except KafkaException as e:
        if handle is not None:
            for _ in range(_WORDS):
                handle.poll(0)
        found = e.args[0] if e.args else None
        raise told(found if isinstance(found, KafkaError) else None, what) from e
    except TimeoutError as e:
        raise LogUnavailable(f"Kafka: {what}: no answer in time") from e
    except RuntimeError as e:
        raise LogError(f"Kafka: {what}: {e}") from e


def _common(cluster: Cluster) -> dict[str, Any]:
    conf: dict[str, Any] = {
        "bootstrap.servers": cluster.bootstrap,
        "client.id": "clicktide",
        "security.protocol": cluster.security,
        "socket.timeout.ms": int(REQUEST_TIMEOUT_S * 1000),
        "socket.keepalive.enable": True,
        "socket.nagle.disable": True,
        "reconnect.backoff.ms": RECONNECT_BACKOFF_MS[0],
        "reconnect.backoff.max.ms": RECONNECT_BACKOFF_MS[1],
        "topic.metadata.refresh.interval.ms": METADATA_MAX_AGE_S * 1000,
        "logger": logger,
        "error_cb": heard,
    }
    if cluster.sasl:
        conf["sasl.mechanisms"] = cluster.sasl_mechanism
        conf["sasl.username"] = cluster.username
        conf["sasl.password"] = cluster.password
    if cluster.tls and cluster.ca_file:
        conf["ssl.ca.location"] = cluster.ca_file
    return conf


def admin_conf(cluster: Cluster) -> dict[str, Any]:
    """For an AdminClient."""
    return _common(cluster)


def consumer_conf(cluster: Cluster, group: str) -> dict[str, Any]:
    """For a Consumer that is told what to read, and commits what it is told."""
    return _common(cluster) | {
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "allow.auto.create.topics": False,
        "fetch.wait.max.ms": FETCH_WAIT_MS,
        "fetch.error.backoff.ms": 100,
        # A fetch waits until what the one before brought was taken, and at least this long. So at some thousand records a second
        # the broker answers a hundred fetches with a few records of each partition, and not one for each batch that a
        # producer writes; of a backlog a fetch brings so much that nobody waits (docs/decisions/0003-the-log.md).
        "fetch.queue.backoff.ms": 10,
        "queued.min.messages": 1,
        "queued.max.messages.kbytes": 32 * 1024,
    }


def producer_conf(cluster: Cluster) -> dict[str, Any]:
    """For a Producer whose acknowledgement means that all in-sync replicas have the record."""
    return _common(cluster) | {
        "acks": "all",
        "enable.idempotence": True,
        # Of what the broker does at some thousand records a second, most is per request: 10 instead of 5 takes a third off.
        "linger.ms": 10,
        "partitioner": "murmur2_random",
        "message.max.bytes": MAX_RECORD_BYTES + 48_576,  # the frame around it: Kafka's own default limit
        "batch.size": 512 * 1024,
        "message.timeout.ms": int(GIVE_UP_S * 1000),
        "queue.buffering.max.messages": 200_000,
        "queue.buffering.max.kbytes": 128 * 1024,
    }
