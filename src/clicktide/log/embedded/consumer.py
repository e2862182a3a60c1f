"""The embedded consumer: reads the partitions it is told to read, woken within milliseconds by other processes.

Never blocks a writer, holds no transaction between two calls, and costs next to nothing while nothing is written.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from clicktide.errors import LogError, OffsetOutOfRange, UnknownTopic
from clicktide.log.embedded import chunk
from clicktide.log.embedded.catalog import (
    bounds_of,
    ends_of,
    key_of,
    read_bounds,
    read_committed,
    read_topics,
    topic_infos,
)
from clicktide.log.embedded.file import LogFile
from clicktide.log.port import Batch, Record, TopicInfo, TopicPartition

# How often to look for news: soon after the last, and when nothing came for a while (one look takes 30 µs where nothing was
# written at all, and twice that where others' partitions were). Who can wait for long is served by fewer looks.
_LOOK_S = (0.001, 0.008)
_LOOKS = 4

# From the chunk that holds the position on; without one, from the next chunk behind it.
_FROM = (
    "SELECT base, count, checksum, body FROM chunks WHERE topic = ?1 AND partition = ?2 AND base >= ifnull("
    "(SELECT base FROM chunks WHERE topic = ?1 AND partition = ?2 AND base <= ?3 ORDER BY base DESC LIMIT 1), ?3)"
    " ORDER BY base"
)


@dataclass(slots=True)
class _Reading:
    """Where one partition is read. `ahead` are records from `position` on that are decoded already."""

    key: int
    position: int
    paused: bool = False
    ahead: chunk.Columns | None = None


class EmbeddedConsumer:
    """`LogConsumer` on the log's file. For one thread at a time."""

    def __init__(self, file: LogFile, group: str, now_ms: Callable[[], int]) -> None:
        self._file = file
        self._group = group
        self._now_ms = now_ms
        self._readings: dict[TopicPartition, _Reading] = {}
        self._topics: set[int] = set()  # their keys
        self._order: list[TopicPartition] = []
        self._first = 0  # whose turn it is to be read first
        self._pause = _LOOK_S[0]
        self._nothing_at: tuple[int, int] | None = (
            None  # the file's version at which nothing was left to read
        )

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        with self._file.reading() as connection:
            topics = read_topics(connection)
        self._readings = {p: _Reading(key_of(topics, p), offset) for p, offset in positions.items()}
        self._topics = {reading.key for reading in self._readings.values()}
        self._order = list(positions)
        self._first = 0
        self._nothing_at = None

    def seek(self, partition: TopicPartition, offset: int) -> None:
        reading = self._reading(partition)
        reading.position, reading.ahead = offset, None
        self._nothing_at = None

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        for partition in partitions:
            self._reading(partition).paused = True

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        for partition in partitions:
            self._reading(partition).paused = False
        self._nothing_at = None

    def _reading(self, partition: TopicPartition) -> _Reading:
        try:
            return self._readings[partition]
        except KeyError:
            raise LogError(f"{partition.topic}:{partition.partition} is not assigned") from None

    def poll(self, max_records: int, timeout_s: float) -> list[Batch]:
        deadline = time.monotonic() + timeout_s
        while True:
            with self._file.reading(deadline) as connection:
                version = (self._file.opened, connection.execute("PRAGMA data_version").fetchone()[0])
                if version != self._nothing_at and (batches := self._gather(connection, max_records)):
                    self._pause = _LOOK_S[0]
                    return batches
            self._nothing_at = version
            left = deadline - time.monotonic()
            if left <= 0:
                return []
            time.sleep(min(self._pause, left))
            self._pause = min(self._pause * 1.2, max(_LOOK_S[1], timeout_s / _LOOKS))

    def _gather(self, connection: sqlite3.Connection, max_records: int) -> list[Batch]:
        """What there is, beginning with the partition that was served least recently."""
        batches: list[Batch] = []
        # One question for all instead of two for each: mostly few of them have anything new.
        ends = ends_of(connection, self._topics)
        left = max_records
        count = len(self._order)
        start = self._first
        for step in range(count):
            partition = self._order[(start + step) % count]
            reading = self._readings[partition]
            if reading.paused:
                continue
            try:
                batch = self._take(connection, partition, reading, left, ends)
            except LogError:
                if not batches:
                    raise
                # What was read from the others goes first; the next poll meets the error.
                self._first = (start + step) % count
                return batches
            if batch is not None:
                batches.append(batch)
                self._first = (start + step + 1) % count
                left -= len(batch.offsets)
                if left <= 0:
                    break
        return batches

    def _take(
        self,
        connection: sqlite3.Connection,
        partition: TopicPartition,
        reading: _Reading,
        limit: int,
        ends: Mapping[tuple[int, int], int],
    ) -> Batch | None:
        columns = reading.ahead
        have = 0 if columns is None else len(columns.values)
        behind = reading.position + have
        if have < limit and ends.get((reading.key, partition.partition)) != behind:
            wanted = limit - have
            more = _read(connection, reading.key, partition, behind, wanted)
            columns = more if columns is None else (columns if more is None else _joined(columns, more))
        if columns is None:
            return None
        count = min(limit, len(columns.values))
        reading.ahead = columns.part(count, len(columns.values)) if count < len(columns.values) else None
        if reading.ahead is not None:
            columns = columns.part(0, count)
        base, reading.position = reading.position, reading.position + count
        headers = columns.headers if columns.headers is not None and any(columns.headers) else None
        return Batch(
            *partition, range(base, base + count), columns.timestamps, columns.keys, columns.values, headers
        )

    def fetch(self, partition: TopicPartition, offsets: Sequence[int], timeout_s: float) -> dict[int, Record]:
        found: dict[int, Record] = {}
        with self._file.reading(time.monotonic() + timeout_s) as connection:
            key = key_of(read_topics(connection), partition)
            base, columns = 0, None
            for offset in sorted(set(offsets)):
                if columns is None or offset >= base + len(columns.values):
                    base, columns = _chunk_at(connection, key, partition.partition, offset)
                if columns is not None and 0 <= (i := offset - base) < len(columns.values):
                    headers = columns.headers[i] if columns.headers is not None else ()
                    found[offset] = Record(
                        *partition, offset, columns.timestamps[i], columns.keys[i], columns.values[i], headers
                    )
        return found

    def committed(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        with self._file.reading() as connection:
            return read_committed(connection, self._group, partitions)

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        with self._file.writing() as connection:
            topics = read_topics(connection)
            at = self._now_ms()
            connection.executemany(
                "INSERT OR REPLACE INTO commits (topic, partition, grp, next, at) VALUES (?, ?, ?, ?, ?)",
                [(key_of(topics, p), p.partition, self._group, offset, at) for p, offset in offsets.items()],
            )

    def bounds(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        with self._file.reading() as connection:
            return read_bounds(connection, partitions)

    def offsets_at(self, partitions: Sequence[TopicPartition], timestamp: int) -> dict[TopicPartition, int]:
        with self._file.reading() as connection:
            topics = read_topics(connection)
            ends = read_bounds(connection, partitions)
            found = {}
            for p in partitions:
                row = connection.execute(
                    "SELECT base, count, checksum, body FROM chunks"
                    " WHERE topic = ? AND partition = ? AND latest >= ? ORDER BY base LIMIT 1",
                    (key_of(topics, p), p.partition, timestamp),
                ).fetchone()
                found[p] = ends[p][1]
                if row is not None:
                    columns = chunk.decode(row[3], row[2], row[1])
                    found[p] = row[0] + next(i for i, t in enumerate(columns.timestamps) if t >= timestamp)
            return found

    def topics(self) -> dict[str, TopicInfo]:
        with self._file.reading() as connection:
            return topic_infos(connection)

    def close(self) -> None:
        self._file.close()


def _read(
    connection: sqlite3.Connection, key: int, partition: TopicPartition, position: int, limit: int
) -> chunk.Columns | None:
    """At least `limit` records from `position` on, or all there are; None when there are none.

    Raises `OffsetOutOfRange` when the position is outside of what is stored, `UnknownTopic` when the topic is gone.
    """
    columns: chunk.Columns | None = None
    rows = connection.execute(_FROM, (key, partition.partition, position))
    try:
        for base, count, checksum, body in rows:
            if columns is None and base > position:
                break
            more = chunk.decode(body, checksum, count)
            if columns is None:
                if position >= base + count:
                    continue  # the last chunk ends before the position
                columns = more.part(position - base, count) if position > base else more
            else:
                columns = _joined(columns, more)
            if len(columns.values) >= limit:
                break
    finally:
        rows.close()
    if columns is None:
        _check_position(connection, key, partition, position)
    return columns


def _check_position(
    connection: sqlite3.Connection, key: int, partition: TopicPartition, position: int
) -> None:
    bounds = bounds_of(connection, key, partition.partition)
    if bounds is None:
        raise UnknownTopic(f"topic {partition.topic} does not exist (any more)")
    if not bounds[0] <= position <= bounds[1]:
        raise OffsetOutOfRange(partition.topic, partition.partition, position, bounds[0])


def _chunk_at(
    connection: sqlite3.Connection, key: int, partition: int, offset: int
) -> tuple[int, chunk.Columns | None]:
    """(base, records) of the chunk that holds an offset."""
    row = connection.execute(
        "SELECT base, count, checksum, body FROM chunks"
        " WHERE topic = ? AND partition = ? AND base <= ? ORDER BY base DESC LIMIT 1",
        (key, partition, offset),
    ).fetchone()
    if row is None or offset >= row[0] + row[1]:
        return offset, None
    return row[0], chunk.decode(row[3], row[2], row[1])


def _joined(a: chunk.Columns, b: chunk.Columns) -> chunk.Columns:
    headers = None
    if a.headers is not None or b.headers is not None:
        headers = (a.headers or [()] * len(a.values)) + (b.headers or [()] * len(b.values))
    return chunk.Columns(a.timestamps + b.timestamps, a.keys + b.keys, a.values + b.values, headers)
