"""The log's file: opens the SQLite database, runs transactions in it, says what its errors mean.

Every committed transaction is on the disk (WAL, synchronous=FULL). A file that is away, full, read-only, damaged or
busy for too long gives `LogUnavailable` (try again) or `LogError` (somebody has to act), never a hang; a file
that was deleted or replaced under a running process is noticed before the next write goes nowhere.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from clicktide.errors import LogError, LogUnavailable
from clicktide.log.limits import REQUEST_TIMEOUT_S

FORMAT = 1
_APPLICATION_ID = 0x7469_6465  # "tide"
_PAGE_BYTES = 8192
_PATIENCE = "PRAGMA busy_timeout = 2000"  # a recovery after a crash holds readers up briefly
_BUSY_SLEEP_S = (0.0003, 0.002)  # SQLite's own back-off grows to 100 ms, far above one commit

# `topics.name` is NULL while a deleted topic's chunks are being removed.
_SCHEMA = f"""
CREATE TABLE topics (
  id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, uid TEXT NOT NULL,
  partitions INTEGER NOT NULL, retention_ms INTEGER);
CREATE TABLE partitions (
  topic INTEGER NOT NULL, partition INTEGER NOT NULL, earliest INTEGER NOT NULL, next INTEGER NOT NULL,
  bytes INTEGER NOT NULL, PRIMARY KEY (topic, partition)) WITHOUT ROWID;
CREATE TABLE chunks (
  seq INTEGER PRIMARY KEY, topic INTEGER NOT NULL, partition INTEGER NOT NULL, base INTEGER NOT NULL,
  count INTEGER NOT NULL, latest INTEGER NOT NULL, written INTEGER NOT NULL, checksum INTEGER NOT NULL,
  body BLOB NOT NULL);
CREATE INDEX places ON chunks (topic, partition, base, count, latest);
CREATE TABLE commits (
  topic INTEGER NOT NULL, partition INTEGER NOT NULL, grp TEXT NOT NULL, next INTEGER NOT NULL,
  at INTEGER NOT NULL, PRIMARY KEY (topic, partition, grp)) WITHOUT ROWID;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {FORMAT};
"""

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_LASTING = {
    sqlite3.SQLITE_CANTOPEN: "cannot be opened",
    sqlite3.SQLITE_READONLY: "is read-only",
    sqlite3.SQLITE_PERM: "may not be opened",
    sqlite3.SQLITE_AUTH: "may not be opened",
    sqlite3.SQLITE_CORRUPT: "is damaged",
    sqlite3.SQLITE_NOTADB: "is not a log of Clicktide",
}


def _primary(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


class LogFile:
    """One connection to the file, opened at its first use. For one thread at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.opened = 0  # counts the connections made: what was remembered of an earlier one is void
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None

    def close(self) -> None:
        """Close the connection; the next use opens another. Never raises."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    @contextlib.contextmanager
    def reading(self, deadline: float | None = None) -> Iterator[sqlite3.Connection]:
        """The connection, with SQLite's errors told as the log's."""
        connection = self._ready(deadline if deadline is not None else time.monotonic() + REQUEST_TIMEOUT_S)
        try:
            yield connection
        except sqlite3.Error as e:
            raise self._told(e) from e

    @contextlib.contextmanager
    def writing(self, deadline: float | None = None) -> Iterator[sqlite3.Connection]:
        """One transaction, begun before `deadline` (monotonic seconds), on the disk when the block has ended."""
        if deadline is None:
            deadline = time.monotonic() + REQUEST_TIMEOUT_S
        connection = self._ready(deadline)
        try:
            # SQLite's own waiting is for readers; here the deadline is the caller's.
            connection.execute("PRAGMA busy_timeout = 0")
            _retry_busy(lambda: connection.execute("BEGIN IMMEDIATE"), deadline)
            connection.execute(_PATIENCE)
            yield connection
            connection.execute("COMMIT")
        except sqlite3.Error as e:
            self._roll_back(connection)
            raise self._told(e) from e
        except BaseException:
            self._roll_back(connection)
            raise

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            self.close()

    def _ready(self, deadline: float) -> sqlite3.Connection:
        if self._connection is not None:
            try:
                found = self.path.stat()
            except OSError as e:
                self.close()
                raise LogUnavailable(f"the log's file {self.path} is gone") from e
            if (found.st_dev, found.st_ino) == self._identity:
                return self._connection
            self.close()
        try:
            connection = _open(self.path, deadline)
        except sqlite3.Error as e:
            raise self._told(e) from e
        found = self.path.stat()
        self._connection, self._identity = connection, (found.st_dev, found.st_ino)
        self.opened += 1
        return connection

    def _told(self, error: sqlite3.Error) -> LogError:
        code = _primary(error)
        if code in _BUSY:
            return LogUnavailable(f"the log's file {self.path} is busy")
        # Whatever else happened, the next use starts from a fresh connection.
        self.close()
        if code == sqlite3.SQLITE_FULL:
            return LogUnavailable(f"the disk of the log's file {self.path} is full")
        if code in _LASTING:
            return LogError(f"the log's file {self.path} {_LASTING[code]} ({error})")
        return LogUnavailable(f"the log's file {self.path}: {error}")


def _retry_busy(act: Callable[[], object], deadline: float) -> None:
    """Call `act` until the file is not busy; raises SQLite's error at the deadline."""
    pause = _BUSY_SLEEP_S[0]
    while True:
        try:
            act()
            return
        except sqlite3.OperationalError as e:
            if _primary(e) not in _BUSY or time.monotonic() + pause >= deadline:
                raise
        time.sleep(pause)
        pause = min(pause * 1.5, _BUSY_SLEEP_S[1])


def _open(path: Path, deadline: float) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise LogError(f"the log's folder {path.parent} cannot be made: {e.strerror}") from e
    connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        _retry_busy(lambda: _prepare(connection, path), deadline)
        connection.execute(_PATIENCE)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    _check(connection, path)
    connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA secure_delete = OFF")  # retention frees pages by the thousand
    connection.execute("PRAGMA cache_size = -8192")
    if _has_tables(connection):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not _has_tables(connection):
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _has_tables(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is not None


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Leave a database that is not ours as it is."""
    if not _has_tables(connection):
        return
    if connection.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
        raise LogError(f"the file {path} is not a log of Clicktide")
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found != FORMAT:
        raise LogError(f"the log's file {path} has format {found}, this version reads format {FORMAT}")
