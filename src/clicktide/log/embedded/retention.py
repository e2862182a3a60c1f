"""Retention: keeps the log's file within its size, and topics within their age, oldest chunks first.

Size never drops what a reader still needs: a chunk may go once every group that commits offsets of its topic has passed
it (a group silent for seven days no longer counts); of a topic that no group reads, nothing goes. When what
has to stay is over the limit, the topic that holds most refuses writes, and at 1.25 times the limit every topic
does: the backlog of one topic leaves room for the others that its readers write to. Age, where a topic has one,
drops chunks read or not, as on Kafka. Offsets of what stays never change.
"""

from __future__ import annotations

import contextlib
import heapq
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import takewhile
from typing import Any, NamedTuple

from clicktide.errors import LogError, LogUnavailable
from clicktide.log.embedded.file import LogFile

_SILENT_GROUP_MS = 7 * 24 * 3600 * 1000
_SWEEP_EVERY_MS = 60_000
_SWEEP_EVERY_BYTES = 1024 * 1024
_RESERVE = 1.25
# Of one transaction, and of one sweep: writers wait for some milliseconds, not for the whole clean-up.
_DROP_CHUNKS = 1000
_DROP_BYTES = 16 * 1024 * 1024
_DROP_ROUNDS = 4
_ROW_BYTES = 64


class Doomed(NamedTuple):
    """A chunk that may go; `end` is the offset behind it."""

    seq: int
    key: int
    partition: int
    end: int
    size: int


def footprint(body: bytes) -> int:
    """Bytes that a chunk takes in the file, about: its body, its row and its index entry."""
    return len(body) + _ROW_BYTES


_CHUNKS = f"SELECT seq, topic, partition, base + count, length(body) + {_ROW_BYTES}, written FROM chunks "


def drop(connection: sqlite3.Connection, doomed: Iterable[Doomed]) -> int:
    """Delete these chunks, the first ones of their partitions, and move `earliest` behind them; the bytes freed."""
    freed: dict[tuple[int, int], int] = defaultdict(int)
    ends: dict[tuple[int, int], int] = defaultdict(int)
    seqs = []
    for d in doomed:
        place = (d.key, d.partition)
        seqs.append((d.seq,))
        freed[place] += d.size
        ends[place] = max(ends[place], d.end)
    connection.executemany("DELETE FROM chunks WHERE seq = ?", seqs)
    connection.executemany(
        "UPDATE partitions SET earliest = max(earliest, ?), bytes = bytes - ? WHERE topic = ? AND partition = ?",
        [(ends[place], size, *place) for place, size in freed.items()],
    )
    return sum(freed.values())


def _written_before(time_ms: int) -> Callable[[Any], bool]:
    return lambda row: bool(row[5] < time_ms)


def aged(connection: sqlite3.Connection, now_ms: int) -> list[Doomed]:
    """Some of the oldest chunks that are older than their topic keeps records."""
    found: list[Doomed] = []
    places = connection.execute(
        "SELECT p.topic, p.partition, t.retention_ms FROM partitions p JOIN topics t ON t.id = p.topic"
        " WHERE t.retention_ms IS NOT NULL AND p.earliest < p.next"
    ).fetchall()
    for key, partition, keep_ms in places:
        rows = connection.execute(
            _CHUNKS + "WHERE topic = ? AND partition = ? ORDER BY base LIMIT ?",
            (key, partition, _DROP_CHUNKS),
        )
        old = takewhile(_written_before(now_ms - keep_ms), rows)
        found.extend(Doomed(*row[:5]) for row in old)
        rows.close()
    return found


def passed(connection: sqlite3.Connection, now_ms: int) -> dict[tuple[int, int], int]:
    """Of each partition (topic key, number) that every group of its topic has read from: the least offset committed."""
    groups: dict[int, set[str]] = defaultdict(set)
    commits: dict[tuple[int, int], dict[str, int]] = defaultdict(dict)
    rows = connection.execute(
        "SELECT topic, partition, grp, next FROM commits WHERE at >= ?", (now_ms - _SILENT_GROUP_MS,)
    )
    for key, partition, group, offset in rows:
        groups[key].add(group)
        commits[key, partition][group] = offset
    return {
        place: min(offsets.values())
        for place, offsets in commits.items()
        if offsets.keys() == groups[place[0]]
    }


def oldest_read(connection: sqlite3.Connection, now_ms: int, excess: int) -> list[Doomed]:
    """The oldest chunks that nobody needs, over all partitions, until `excess` bytes are found."""

    def chunks(key: int, partition: int, end: int) -> Iterator[Doomed]:
        rows = connection.execute(
            _CHUNKS
            + "WHERE topic = ? AND partition = ? AND base < ? AND base + count <= ? ORDER BY base LIMIT ?",
            (key, partition, end, end, _DROP_CHUNKS),
        )
        return (Doomed(*row[:5]) for row in rows.fetchall())

    found: list[Doomed] = []
    size = 0
    for d in heapq.merge(*(chunks(*place, end) for place, end in passed(connection, now_ms).items())):
        if size >= min(excess, _DROP_BYTES) or len(found) >= _DROP_CHUNKS:
            break
        found.append(d)
        size += d.size
    return found


class Retention:
    """Sweeps after enough was written or time went by. For one thread at a time."""

    def __init__(self, limit_bytes: int, now_ms: Callable[[], int]) -> None:
        self._limit = limit_bytes
        self._now_ms = now_ms
        self._step = min(_SWEEP_EVERY_BYTES, limit_bytes // 16)
        # The first write of a process sweeps: an earlier process may have left too much.
        self._unswept = self._step
        self._swept_at = 0
        self._full_key: int | None = None
        self._all_full = False

    def before_write(self, file: LogFile) -> None:
        """A log that was full may have room by now."""
        if self._full_key is not None:
            self.sweep(file)

    def after_write(self, file: LogFile, size: int) -> None:
        """Sweep when it is time. What was written is written: an error here waits for the next write."""
        self._unswept += size
        if self._unswept >= self._step or abs(self._now_ms() - self._swept_at) >= _SWEEP_EVERY_MS:
            with contextlib.suppress(LogError):
                self.sweep(file)

    def refuse(self, key: int) -> LogError | None:
        """Why this topic takes no more for now, or None."""
        if self._all_full or key == self._full_key:
            return LogUnavailable(
                f"the log is full: {self._limit >> 20} MiB of records that its groups have not read yet"
                " (log.retention_mb)"
            )
        return None

    def sweep(self, file: LogFile) -> None:
        """Drop what may go, then see whether the rest is too much."""
        for _ in range(_DROP_ROUNDS):
            with file.reading() as connection:
                used = dict(connection.execute("SELECT topic, sum(bytes) FROM partitions GROUP BY topic"))
                excess = sum(used.values()) - self._limit
                doomed = aged(connection, self._now_ms())
                if not doomed and excess > 0:
                    doomed = oldest_read(connection, self._now_ms(), excess)
            if not doomed:
                self._unswept, self._swept_at = 0, self._now_ms()
                self._full_key = max(used, key=lambda key: used[key]) if used and excess > 0 else None
                self._all_full = excess > self._limit * (_RESERVE - 1)
                return
            with file.writing() as connection:
                # Another process may have swept meanwhile: only what is still there counts.
                drop(connection, [d for d in doomed if _exists(connection, d.seq)])
        # More could go, but others wait: the next write goes on from here.
        self._unswept, self._full_key, self._all_full = self._step, None, False


def _exists(connection: sqlite3.Connection, seq: int) -> bool:
    return connection.execute("SELECT 1 FROM chunks WHERE seq = ?", (seq,)).fetchone() is not None
