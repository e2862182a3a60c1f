"""kafka-python's configuration, and what its errors mean to us.

Everything is bounded. What is not known to be lasting counts as retriable.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from kafka import errors as kafka_errors
from kafka.net.compat import KafkaNetClient

from clicktide.errors import LogError, LogUnavailable, RecordTooLarge, UnknownTopic
from clicktide.log.kafka import METADATA_MAX_AGE_S, RECONNECT_BACKOFF_MS, Cluster
from clicktide.log.limits import REQUEST_TIMEOUT_S
from clicktide.log.refusals import Refusals

Client = TypeVar("Client")
refusals = Refusals()
_REFUSED = ("SaslAuthenticationFailed", "CERTIFICATE_VERIFY_FAILED", "UnsupportedSaslMechanism")


class _Listener(logging.Handler):
    """kafka-python says why it is refused in its log alone; the call then runs out of time."""

    def emit(self, record: logging.LogRecord) -> None:
        for argument in record.args if isinstance(record.args, tuple) else ():
            if isinstance(argument, Exception) and any(word in str(argument) for word in _REFUSED):
                refusals.note(str(argument))


for _name in ("kafka.net.connection", "kafka.net.manager"):
    logging.getLogger(_name).addHandler(_Listener(logging.ERROR))

_UNKNOWN_TOPIC = (kafka_errors.UnknownTopicOrPartitionError, kafka_errors.UnknownTopicIdError)
_TOO_LARGE = (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)
_LASTING = (
    kafka_errors.AuthorizationError,
    kafka_errors.IllegalArgumentError,
    kafka_errors.InvalidConfigurationError,
    kafka_errors.InvalidGroupIdError,
    kafka_errors.InvalidPartitionsError,
    kafka_errors.InvalidReplicationFactorError,
    kafka_errors.InvalidTimestampError,
    kafka_errors.InvalidTopicError,
    kafka_errors.KafkaConfigurationError,
    kafka_errors.PolicyViolationError,
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.UnsupportedVersionError,
)


def told(error: BaseException, what: str) -> LogError:
    """kafka-python's error as the log's; `what` says what was tried."""
    text = f"Kafka: {what}: {' '.join(str(error).split()) or type(error).__name__}"
    if isinstance(error, _UNKNOWN_TOPIC):
        return UnknownTopic(text)
    if isinstance(error, _TOO_LARGE):
        return RecordTooLarge(text)
    return LogError(text) if isinstance(error, _LASTING) else LogUnavailable(refusals.with_reason(text))


@contextmanager
def telling(what: str) -> Iterator[None]:
    """Raise kafka-python's exceptions as the log's."""
    try:
        yield
    except (kafka_errors.KafkaError, OSError) as e:
        raise told(e, what) from e


def opened(kind: Callable[..., Client], conf: Mapping[str, Any]) -> Client:
    """A client of the library's, connected. One that fails is ended: by itself (3.0.12) it would leave a thread and sockets behind, at
    each attempt of a long outage."""
    made: list[Any] = []

    def connection(**own: Any) -> Any:
        made.append(KafkaNetClient(**own))
        return made[-1]

    try:
        return kind(**conf, kafka_client=connection)
    except BaseException:
        for client in made:
            client._net.stop()  # noqa: SLF001 - there is no public way
            client.close()
        raise


def common(
    cluster: Cluster, timeout_s: float = REQUEST_TIMEOUT_S, request_s: float = REQUEST_TIMEOUT_S
) -> dict[str, Any]:
    """What all its clients take; `timeout_s` bounds the first connection, `request_s` every request."""
    conf: dict[str, Any] = {
        "bootstrap_servers": cluster.bootstrap.split(","),
        "client_id": "clicktide",
        "security_protocol": cluster.security,
        "request_timeout_ms": max(1, int(request_s * 1000)),
        "bootstrap_timeout_ms": max(1, int(timeout_s * 1000)),
        "retry_backoff_ms": 50,
        "reconnect_backoff_ms": RECONNECT_BACKOFF_MS[0],
        "reconnect_backoff_max_ms": RECONNECT_BACKOFF_MS[1],
        "metadata_max_age_ms": METADATA_MAX_AGE_S * 1000,
    }
    if cluster.sasl:
        conf["sasl_mechanism"] = cluster.sasl_mechanism
        conf["sasl_plain_username"] = cluster.username
        conf["sasl_plain_password"] = cluster.password
    if cluster.tls and cluster.ca_file:
        conf["ssl_cafile"] = cluster.ca_file
    return conf
