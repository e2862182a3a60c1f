"""The port to the log: what the pipeline needs of Kafka, and no more.

Every adapter (`embedded`, `kafka_python`, `confluent`) passes the same contract suite. Offsets are those of
Kafka: the next offset to read is what is committed; timestamps are milliseconds since the epoch. No method
but the ones that say so ever blocks for longer than its timeout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

Headers = tuple[tuple[str, bytes], ...]


class TopicPartition(NamedTuple):
    topic: str
    partition: int


class Record(NamedTuple):
    """One record as it is stored."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes
    headers: Headers = ()


class Outgoing(NamedTuple):
    """One record to write. `partition=None` lets Kafka's own partitioner decide: murmur2 of the key."""

    topic: str
    key: bytes | None
    value: bytes
    headers: Headers = ()
    partition: int | None = None
    timestamp: int | None = None


class Placed(NamedTuple):
    """Where an acknowledged record went."""

    partition: int
    offset: int


class Batch(NamedTuple):
    """Records of one partition in offset order, as columns (no object a record in the hot path).

    The sequences are of equal length, and not empty. `headers` is None where no record has any.
    """

    topic: str
    partition: int
    offsets: Sequence[int]
    timestamps: Sequence[int]
    keys: Sequence[bytes | None]
    values: Sequence[bytes]
    headers: Sequence[Headers] | None = None


class TopicInfo(NamedTuple):
    """`id` tells a topic from a former one of the same name (Kafka's topic id; 32 hex digits)."""

    name: str
    id: str
    partitions: int


class LogConsumer(Protocol):
    """Reads partitions that it is told to read (no group membership, no rebalancing protocol).

    Raises `errors.LogUnavailable` (retriable) from every call that cannot reach the broker in time, and
    `errors.OffsetOutOfRange` from `poll` when retention has passed a position (it carries the earliest offset).
    """

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read exactly these partitions, each from its offset. Un-pauses them. Replaces an earlier assignment."""

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Go on from `offset`. Records fetched before are dropped: the next batch starts at or after it."""

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """`poll` skips these until `resume`; the position is kept."""

    def resume(self, partitions: Sequence[TopicPartition]) -> None: ...

    def poll(self, max_records: int, timeout_s: float) -> list[Batch]:
        """Up to `max_records` records in all, as one or more batches; [] after `timeout_s` with nothing new.

        A partition that has always something new does not starve the others.
        """

    def fetch(self, partition: TopicPartition, offsets: Sequence[int], timeout_s: float) -> dict[int, Record]:
        """The records at these offsets, wherever the consumer stands, which it does not change.

        Offsets that are not stored (any more) are missing from the answer.
        """

    def committed(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """The group's next offset of each; a partition never committed is missing."""

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Store the next offsets of the group, synchronously."""

    def bounds(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        """(earliest offset kept, next offset to be written) of each."""

    def offsets_at(self, partitions: Sequence[TopicPartition], timestamp: int) -> dict[TopicPartition, int]:
        """The first offset at or after `timestamp` (ms); the end offset where there is none."""

    def topics(self) -> dict[str, TopicInfo]:
        """All topics that exist now, by name."""

    def close(self) -> None: ...


class LogProducer(Protocol):
    """Writes with acks=all, idempotent. What it has answered is on the broker."""

    def send(self, records: Sequence[Outgoing], timeout_s: float) -> list[Placed]:
        """Write all, wait for the acknowledgement of all; order is kept per partition.

        Raises `errors.LogUnavailable` (retriable) when any was not acknowledged in time: each may or may not be
        stored, as ever with at-least-once; `errors.RecordTooLarge`, `errors.UnknownTopic` before anything is written
        where that can be known. Safe to call from several threads.
        """

    def close(self) -> None: ...


class LogAdmin(Protocol):
    def create_topics(self, topics: Mapping[str, int], retention_ms: int | None = None) -> None:
        """Make those that do not exist with that number of partitions; leaves others as they are (idempotent)."""

    def add_partitions(self, topic: str, partitions: int) -> None:
        """Grow a topic to `partitions` in all."""

    def delete_topics(self, topics: Sequence[str]) -> None:
        """Gone when it returns; unknown names are ignored."""

    def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Drop what lies before these offsets (the desk's purge, and erasing a user)."""

    def topics(self) -> dict[str, TopicInfo]: ...

    def bounds(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]: ...

    def committed(self, group: str, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]: ...

    def close(self) -> None: ...


@runtime_checkable
class Log(Protocol):
    """A log that can be opened: what `log.open_log(settings)` returns. Cheap to make; connects on use."""

    def consumer(self, group: str) -> LogConsumer: ...

    def producer(self) -> LogProducer: ...

    def admin(self) -> LogAdmin: ...
