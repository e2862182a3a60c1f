"""One DSN: runs a piece of work on a connection of its pool and says what went wrong in the project's own errors.

A call ends within about the timeout (one more try only for a connection that was found closed, or a deadlock); after a
failure the connection is thrown away, and the next call connects anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.pool import PoolProxiedConnection

from clicktide.errors import StoreUnavailable
from clicktide.sql.engine import open_engine, parse_dsn
from clicktide.sql.failures import StoreGone, translate
from clicktide.sql.mysql import MysqlStatements
from clicktide.sql.sqlite import SqliteStatements
from clicktide.sql.statements import Statements

T = TypeVar("T")


class Dsn:
    """The DSN number `index` (`is_file`: an SQLite file, no server); usable by several threads, each call takes its own connection."""

    def __init__(
        self, index: int, url: str, timeout_s: float, clock: Callable[[], float], *, bulk: bool = True
    ) -> None:
        parsed = parse_dsn(url)
        self.index = index
        self.store = f"mysql.{index}"  # the name is the design's, whatever the dialect
        self.engine = open_engine(parsed, timeout_s)
        self.statements: Statements = (
            SqliteStatements(timeout_s, clock)
            if parsed.get_backend_name() == "sqlite"
            else MysqlStatements(bulk=bulk)
        )
        self.is_file = isinstance(self.statements, SqliteStatements)
        if isinstance(self.statements, MysqlStatements):
            event.listen(self.engine, "connect", self.statements.connected)
        self._timeout_s = timeout_s
        self._clock = clock
        self._kept: list[Connection] = []  # `pop` and `append` are safe among threads

    def write(self, work: Callable[[Any], T]) -> T:
        """`work` on a DBAPI cursor in one transaction: committed when it returns, rolled back when it raises.

        `work` may run twice, the first time without any effect. Raises `StoreUnavailable`, `StoreRefused`, and what
        `work` raises of its own.
        """
        return self._twice(lambda: self._write_once(work))

    def read(self, work: Callable[[Connection], T]) -> T:
        """`work` on a SQLAlchemy connection, rolled back after it; errors and retry as in `write`."""

        def once() -> T:
            with self.connection() as connection:
                return work(connection)

        return self._twice(once)

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A SQLAlchemy connection; errors as in `write`, without the retry."""
        # To a file one is kept at hand: out of the pool and back takes as long as a short question itself.
        try:
            with _closed_on_error(self._take() or self.engine.connect()) as connection:
                yield connection
            if self.is_file and not self._kept:
                self._kept.append(connection)
            else:
                connection.close()
        except Exception as e:
            raise (translate(self.store, e) or e) from e

    def close(self) -> None:
        """Close the idle connections; a later call opens new ones."""
        while (kept := self._take()) is not None:
            kept.close()
        self.engine.dispose()

    def _take(self) -> Connection | None:
        try:
            return self._kept.pop()
        except IndexError:
            return None

    def _twice(self, once: Callable[[], T]) -> T:
        started = self._clock()
        try:
            return once()
        except StoreGone:
            self.close()  # its neighbours in the pool are as dead
            if self._clock() - started > self._timeout_s / 4:
                raise
            return once()

    def _write_once(self, work: Callable[[Any], T]) -> T:
        try:
            connection = self.engine.raw_connection()
        except Exception as e:
            raise (translate(self.store, e) or e) from e
        try:
            cursor = connection.cursor()
            self.statements.begin(cursor)
            result = work(cursor)
            self.statements.commit(cursor)
            cursor.close()
        except BaseException as e:
            error = translate(self.store, e) or e
            if isinstance(error, Exception) and not isinstance(error, StoreUnavailable):
                error = self._undo(connection) or error
            else:
                connection.invalidate()
            if error is e:
                raise
            raise error from e
        connection.close()
        return result

    def _undo(self, connection: PoolProxiedConnection) -> StoreUnavailable | None:
        """Roll back, after the fault of a value; the server may go away even then."""
        try:
            connection.rollback()
            connection.close()
        except Exception as e:
            connection.invalidate()
            return StoreUnavailable(self.store, f"lost in a rollback: {e}")
        return None


@contextmanager
def _closed_on_error(connection: Connection) -> Iterator[Connection]:
    try:
        yield connection
    except BaseException:
        connection.close()
        raise
