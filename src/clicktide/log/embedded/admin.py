"""The embedded log's administration: topics and what is kept of them.

Each call is one transaction, or many short ones where a lot is dropped; cut short, it can be repeated.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence

from clicktide.errors import LogError, UnknownTopic
from clicktide.log.embedded import chunk
from clicktide.log.embedded.catalog import (
    bounds_of,
    key_of,
    read_bounds,
    read_committed,
    read_topics,
    topic_infos,
)
from clicktide.log.embedded.file import LogFile
from clicktide.log.embedded.retention import Doomed, drop, footprint
from clicktide.log.limits import check_topic
from clicktide.log.port import TopicInfo, TopicPartition

_DROP_CHUNKS = 500


class EmbeddedAdmin:
    """`LogAdmin` on the log's file. For one thread at a time."""

    def __init__(self, file: LogFile, new_id: Callable[[], str]) -> None:
        self._file = file
        self._new_id = new_id

    def create_topics(self, topics: Mapping[str, int], retention_ms: int | None = None) -> None:
        for name, partitions in topics.items():
            check_topic(name, partitions)
        with self._file.writing() as connection:
            existing = read_topics(connection)
            for name, partitions in topics.items():
                if name in existing:
                    continue
                made = connection.execute(
                    "INSERT INTO topics (name, uid, partitions, retention_ms) VALUES (?, ?, ?, ?)",
                    (name, self._new_id(), partitions, retention_ms),
                )
                _add(connection, int(made.lastrowid or 0), range(partitions))

    def add_partitions(self, topic: str, partitions: int) -> None:
        with self._file.writing() as connection:
            found = read_topics(connection).get(topic)
            if found is None:
                raise UnknownTopic(f"topic {topic} does not exist")
            if partitions < found.partitions:
                raise LogError(f"topic {topic} has {found.partitions} partitions: it cannot have fewer")
            connection.execute("UPDATE topics SET partitions = ? WHERE id = ?", (partitions, found.key))
            _add(connection, found.key, range(found.partitions, partitions))

    def delete_topics(self, topics: Sequence[str]) -> None:
        with self._file.writing() as connection:
            existing = read_topics(connection)
            for key in {existing[name].key for name in topics if name in existing}:
                connection.execute("UPDATE topics SET name = NULL WHERE id = ?", (key,))
                connection.execute("DELETE FROM partitions WHERE topic = ?", (key,))
                connection.execute("DELETE FROM commits WHERE topic = ?", (key,))
        while not self._sweep_deleted():
            pass

    def _sweep_deleted(self) -> bool:
        """Drop some chunks of topics that are gone, also of a deletion that was cut short; True when none is left."""
        with self._file.writing() as connection:
            row = connection.execute("SELECT id FROM topics WHERE name IS NULL LIMIT 1").fetchone()
            if row is None:
                return True
            dropped = connection.execute(
                "DELETE FROM chunks WHERE seq IN (SELECT seq FROM chunks WHERE topic = ? LIMIT ?)",
                (row[0], _DROP_CHUNKS),
            ).rowcount
            if dropped < _DROP_CHUNKS:
                connection.execute("DELETE FROM topics WHERE id = ?", row)
            return False

    def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        for partition, offset in before.items():
            while not self._delete_some(partition, offset):
                pass

    def _delete_some(self, partition: TopicPartition, before: int) -> bool:
        """Drop some chunks of what lies before the offset; True when the last of them is gone."""
        with self._file.writing() as connection:
            # What the desk purges and what a user wants erased leaves the disk too, not just the index.
            connection.execute("PRAGMA secure_delete = ON")
            try:
                key = key_of(read_topics(connection), partition)
                bounds = bounds_of(connection, key, partition.partition)
                before = min(before, bounds[1]) if bounds is not None else before
                rows = connection.execute(
                    "SELECT seq, base, count, checksum, body FROM chunks"
                    " WHERE topic = ? AND partition = ? AND base < ? ORDER BY base LIMIT ?",
                    (key, partition.partition, before, _DROP_CHUNKS),
                ).fetchall()
                doomed = [Doomed(r[0], key, partition.partition, r[1] + r[2], footprint(r[4])) for r in rows]
                cut = doomed.pop() if doomed and doomed[-1].end > before else None
                drop(connection, doomed)
                if cut is not None:
                    _keep_tail(connection, cut, before, *rows[-1][1:])
                return len(rows) < _DROP_CHUNKS
            finally:
                connection.execute("PRAGMA secure_delete = OFF")

    def topics(self) -> dict[str, TopicInfo]:
        with self._file.reading() as connection:
            return topic_infos(connection)

    def bounds(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        with self._file.reading() as connection:
            return read_bounds(connection, partitions)

    def committed(self, group: str, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        with self._file.reading() as connection:
            return read_committed(connection, group, partitions)

    def close(self) -> None:
        self._file.close()


def _add(connection: sqlite3.Connection, key: int, numbers: range) -> None:
    connection.executemany(
        "INSERT INTO partitions (topic, partition, earliest, next, bytes) VALUES (?, ?, 0, 0, 0)",
        [(key, number) for number in numbers],
    )


def _keep_tail(
    connection: sqlite3.Connection,
    cut: Doomed,
    before: int,
    base: int,
    count: int,
    checksum: int,
    body: bytes,
) -> None:
    """Write a chunk anew without the records before an offset in its middle."""
    tail = chunk.decode(body, checksum, count).part(before - base, count)
    kept, kept_checksum = chunk.encode(tail)
    connection.execute(
        "UPDATE chunks SET base = ?, count = ?, checksum = ?, body = ? WHERE seq = ?",
        (before, len(tail.values), kept_checksum, kept, cut.seq),
    )
    connection.execute(
        "UPDATE partitions SET earliest = ?, bytes = bytes + ? WHERE topic = ? AND partition = ?",
        (before, footprint(kept) - cut.size, cut.key, cut.partition),
    )
