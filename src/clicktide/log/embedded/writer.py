"""The writer: all threads of a process that send share its transactions (group commit).

Whoever finds nobody writing takes what waits, its own records included, and commits it as one transaction; the others
wait for that. What `send` answers is on the disk; what is refused before its turn came was never written.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from clicktide.errors import LogError, LogUnavailable
from clicktide.log.embedded import chunk
from clicktide.log.embedded.catalog import Topic, read_topics
from clicktide.log.embedded.file import LogFile
from clicktide.log.embedded.plan import Plan, make_plan
from clicktide.log.embedded.retention import Retention, footprint
from clicktide.log.limits import check_sizes
from clicktide.log.port import Outgoing, Placed

# One transaction takes about so much, so that the first to wait is not held up by all behind it.
_MAX_COMMIT_BYTES = 8 * 1024 * 1024

_Place = tuple[int, int]
_Row = tuple[int, int, int, bytes]  # count, latest timestamp, checksum, body


@dataclass(slots=True, eq=False)
class _Request:
    records: Sequence[Outgoing]
    size: int
    deadline: float
    outcome: list[Placed] | LogError | None = None


class _Stale(Exception):
    """The topics changed between the plan and its transaction."""


class Writer:
    """Appends records to the log's file. Safe for any number of threads."""

    def __init__(self, file: LogFile, retention: Retention, now_ms: Callable[[], int]) -> None:
        self._file = file
        self._retention = retention
        self._now_ms = now_ms
        self._turn = threading.Condition()
        self._waiting: list[_Request] = []
        self._writing = False
        self._keyless = itertools.count()

    def close(self) -> None:
        """Wait for the transaction under way and close the file."""
        with self._turn:
            self._turn.wait_for(lambda: not self._writing)
            self._file.close()

    def send(self, records: Sequence[Outgoing], timeout_s: float) -> list[Placed]:
        """As `LogProducer.send`."""
        size = check_sizes(records)
        if not records:
            return []
        request = _Request(records, size, time.monotonic() + timeout_s)
        if self._wait_for_turn(request, timeout_s):
            self._lead(request)
        if request.outcome is None:
            raise LogUnavailable(f"the log's file {self._file.path} did not acknowledge in time")
        if isinstance(request.outcome, LogError):
            raise request.outcome
        return request.outcome

    def _wait_for_turn(self, request: _Request, timeout_s: float) -> bool:
        """True when this thread has to lead, False when its request was dealt with or its time is up."""
        with self._turn:
            self._waiting.append(request)
            self._turn.wait_for(lambda: request.outcome is not None or not self._writing, timeout_s)
            if request.outcome is None and not self._writing:
                self._writing = True
                return True
            if request in self._waiting:
                self._waiting.remove(request)
            return False

    def _lead(self, request: _Request) -> None:
        """One transaction for this request and others that wait, then let another thread lead."""
        taken = self._take(request)
        failure: LogError = LogUnavailable("the writing of the log was interrupted")
        begun = False

        def begin() -> None:
            nonlocal begun
            begun = True

        try:
            self._commit(taken, request.deadline, begin)
        except LogError as e:
            failure = e
        finally:
            with self._turn:
                for other in taken:
                    if other.outcome is not None:
                        continue
                    # Nothing was written and only the leader's time was up: the others go on waiting, unless theirs is up
                    # too, for then nobody is told of what would be written.
                    patient = other is not request and other.deadline > time.monotonic()
                    if failure.retriable and not begun and patient:
                        self._waiting.append(other)
                    else:
                        other.outcome = failure
                self._writing = False
                self._turn.notify_all()

    def _take(self, first: _Request) -> list[_Request]:
        with self._turn:
            self._waiting.remove(first)
            taken, size = [first], first.size
            while self._waiting and size + self._waiting[0].size <= _MAX_COMMIT_BYTES:
                taken.append(self._waiting.pop(0))
                size += taken[-1].size
            return taken

    def _commit(self, taken: list[_Request], deadline: float, begin: Callable[[], None]) -> None:
        self._retention.before_write(self._file)
        while True:
            with self._file.reading(deadline) as connection:
                topics = read_topics(connection)
            plan = make_plan(
                [request.records for request in taken],
                topics,
                self._retention.refuse,
                self._now_ms(),
                next(self._keyless),
            )
            try:
                size = self._write(plan, topics, deadline, begin)
                break
            except _Stale:
                continue
        with self._turn:
            for request, outcome in zip(taken, plan.outcomes, strict=True):
                request.outcome = outcome
            self._turn.notify_all()
        self._retention.after_write(self._file, size)

    def _write(
        self, plan: Plan, topics: Mapping[str, Topic], deadline: float, begin: Callable[[], None]
    ) -> int:
        """The plan as one transaction; the bytes that it added."""
        if not plan.columns:
            return 0
        # Everything that takes long is done before the transaction: other processes wait for its end.
        rows: dict[_Place, list[_Row]] = {}
        for place, column in plan.columns.items():
            rows[place] = [_row(columns) for columns in column.chunks()]
        size = 0
        with self._file.writing(deadline) as connection:
            begin()
            if read_topics(connection) != topics:
                raise _Stale
            written = self._now_ms()
            for (key, partition), chunks in rows.items():
                base = first = connection.execute(
                    "SELECT next FROM partitions WHERE topic = ? AND partition = ?", (key, partition)
                ).fetchone()[0]
                added = 0
                for count, latest, checksum, body in chunks:
                    connection.execute(
                        "INSERT INTO chunks (topic, partition, base, count, latest, written, checksum, body)"
                        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                        (key, partition, base, count, latest, written, checksum, body),
                    )
                    base += count
                    added += footprint(body)
                connection.execute(
                    "UPDATE partitions SET next = ?, bytes = bytes + ? WHERE topic = ? AND partition = ?",
                    (base, added, key, partition),
                )
                plan.columns[key, partition].place(partition, first)
                size += added
        return size


def _row(columns: chunk.Columns) -> _Row:
    body, checksum = chunk.encode(columns)
    return len(columns.values), max(columns.timestamps), checksum, body


class EmbeddedProducer:
    """`LogProducer` on the log's file: a window to the writer that all producers of a log share."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def send(self, records: Sequence[Outgoing], timeout_s: float) -> list[Placed]:
        return self._writer.send(records, timeout_s)

    def close(self) -> None:
        self._writer.close()
