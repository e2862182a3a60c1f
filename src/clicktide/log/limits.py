"""What every adapter refuses in the same words, and the times that bound the calls without a timeout of their own.

Promises that a record too large is refused before anything is written.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from clicktide.errors import LogError, RecordTooLarge
from clicktide.log.port import Outgoing

# Key, value and headers together. Under Kafka's own default (message.max.bytes, 1 MiB) by what a record's frame takes.
MAX_RECORD_BYTES = 1_000_000
# Bounds calls that ask the broker something and have no timeout argument (commit, bounds, topics, ...).
REQUEST_TIMEOUT_S = 10.0
# After it a producer gives a record up: a sender that gave up must not be surprised much later by what it had given up.
GIVE_UP_S = 15.0

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}\Z")


def size_of(record: Outgoing) -> int:
    """Bytes of key, value and headers."""
    size = len(record.value) + (len(record.key) if record.key is not None else 0)
    for name, value in record.headers:
        size += len(name.encode()) + len(value)
    return size


def check_sizes(records: Sequence[Outgoing]) -> int:
    """The bytes of all; raises `RecordTooLarge` naming the first that is too large."""
    total = 0
    for record in records:
        if not isinstance(record.value, bytes) or not isinstance(record.key, bytes | None):
            raise TypeError(f"a record for {record.topic}: expected key and value in bytes")
        size = size_of(record)
        if size > MAX_RECORD_BYTES:
            raise RecordTooLarge(
                f"a record of {size} bytes for {record.topic}: at most {MAX_RECORD_BYTES} are taken"
            )
        total += size
    return total


def check_topic(name: str, partitions: int) -> None:
    """Raises `LogError` when Kafka would not take that name or number of partitions."""
    if not _TOPIC.match(name) or name in (".", ".."):
        raise LogError(f"topic {name!r}: expected 1 to 249 letters, digits, dots, underscores or dashes")
    if partitions < 1:
        raise LogError(f"topic {name}: expected at least 1 partition, got {partitions}")
