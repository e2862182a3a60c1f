"""The writer: all threads of a process that send share its transactions (group commit).

Whoever finds nobody writing takes what waits, its own records included, and commits it as one transaction; the others
wait for that. What `send` answers is on the disk; what it refuses before its turn came was never written.
"""

from __future__ import annotations

import itertools
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from clicktide.errors import ClicktideError, LogError, LogUnavailable
from clicktide.log.embedded import chunk
from clicktide.log.embedded.catalog import Topic, key_of, read_topics
from clicktide.log.embedded.file import LogFile
from clicktide.log.embedded.retention import Retention, footprint
from clicktide.log.limits import check_sizes
from clicktide.log.port import Headers, Outgoing, Placed, TopicPartition
from clicktide.shards import murmur2

# One transaction takes at most about so much, so that the first to wait is not held up by all behind it.
_MAX_COMMIT_BYTES = 8 * 1024 * 1024

_hash = lru_cache(maxsize=65536)(murmur2)


@dataclass(slots=True, eq=False)
class _Request:
    records: Sequence[Outgoing]
    size: int
    deadline: float
    placed: list[Placed] | None = None
    error: Exception | None = None

    @property
    def done(self) -> bool:
        return self.placed is not None or self.error is not None


@dataclass(slots=True)
class _Column:
    """What goes to one partition in one transaction, and for whom: (request's answers, index in them)."""

    timestamps: list[int] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)
    headers: list[Headers] = field(default_factory=list)
    answers: list[tuple[list[Placed | None], int]] = field(default_factory=list)
    size: int = 0


_Plan = dict[tuple[int, int], _Column]


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
        with self._turn:
            self._waiting.append(request)
            self._turn.wait_for(lambda: request.done or not self._writing, timeout_s)
            if not request.done and not self._writing:
                self._writing = True
                taken = self._take(request)
            else:
                taken = []
                if request in self._waiting:
                    self._waiting.remove(request)
                    request.error = LogUnavailable(f"the log's file {self._file.path} is busy")
        if taken:
            self._lead(taken)
        return self._answer(request)

    def _answer(self, request: _Request) -> list[Placed]:
        if request.error is not None:
            raise request.error
        if request.placed is None:
            raise LogUnavailable(f"the log's file {self._file.path} has not acknowledged in time")
        return request.placed

    def _take(self, first: _Request) -> list[_Request]:
        """What goes into the next transaction: the leader's own request, and those that came before and after it."""
        self._waiting.remove(first)
        taken, size = [first], first.size
        while self._waiting and size + self._waiting[0].size <= _MAX_COMMIT_BYTES:
            taken.append(self._waiting.pop(0))
            size += taken[-1].size
        return taken

    def _lead(self, taken: list[_Request]) -> None:
        try:
            self._commit(taken)
        except Exception as e:  # told to every thread that waits for it, and raised there
            self._fail(taken, e)
        except BaseException:
            self._fail(taken, LogUnavailable("the writing of the log was interrupted"))
            raise
        finally:
            with self._turn:
                self._writing = False
                self._turn.notify_all()

    def _fail(self, taken: list[_Request], error: Exception) -> None:
        now = time.monotonic()
        if not isinstance(error, ClicktideError):
            error = LogError(f"the log's file {self._file.path}: {error}")
        with self._turn:
            for request in taken:
                if not request.done:
                    # Busy until the most impatient one's deadline: the others wait on.
                    if isinstance(error, _NotBegun) and now < request.deadline and request is not taken[0]:
                        self._waiting.insert(0, request)
                    else:
                        request.error = error

    def _commit(self, taken: list[_Request]) -> None:
        deadline = min(request.deadline for request in taken)
        with self._file.reading(deadline) as connection:
            topics = read_topics(connection)
        plan = self._plan(taken, topics)
        size = 0
        if plan:
            rows = {place: _chunks(column) for place, column in plan.items()}
            size = self._write(plan, rows, topics, deadline)
        with self._turn:
            self._turn.notify_all()
        self._retention.after_write(self._file, size)

    def _plan(self, taken: list[_Request], topics: dict[str, Topic]) -> _Plan:
        raise NotImplementedError
