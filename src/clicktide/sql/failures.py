"""What a database's error means: the server is away, or the value is bad.

Only an error that is known to be the value's own fault becomes `StoreRefused`; all others become
`StoreUnavailable`, so that no good event is given up for a server's trouble.
"""

from __future__ import annotations

import sqlite3
from typing import Final

import orjson
import pymysql
import sqlalchemy.exc

from clicktide.errors import StoreError, StoreRefused, StoreUnavailable

# Not the server's state but the statement's values: packet or row too large, syntax (a value that is no
# literal), illegal number, truncation, CHECK of MariaDB and of MySQL, bad character, out of range.
_MYSQL_VALUE: Final = frozenset({1064, 1118, 1153, 1264, 1265, 1292, 1300, 1366, 1367, 1406, 3819, 4025})
# The same call will most likely succeed at once: connection closed by the server meanwhile, deadlock.
_MYSQL_AGAIN: Final = frozenset({2006, 2013, 1053, 1213, 1927, 4031})
_MYSQL_HINTS: Final = {
    1049: "the database does not exist",
    1146: "its tables are missing; run `./tide shards init`",
}
_VALUE_ERRORS: Final = (UnicodeEncodeError, OverflowError, orjson.JSONEncodeError)


class StoreGone(StoreUnavailable):
    """The connection had been closed, or a deadlock chose us: worth one more try at once."""


def translate(store: str, error: BaseException) -> StoreError | None:
    """The project's error for what a driver or SQLAlchemy raised; None when it is neither's."""
    if isinstance(error, sqlalchemy.exc.DBAPIError) and error.orig is not None:
        error = error.orig
    if isinstance(error, _VALUE_ERRORS):
        return StoreRefused(store, f"bad value: {_line(error)}")
    if isinstance(error, pymysql.err.Error):
        return _mysql(store, error)
    if isinstance(error, sqlite3.Error):
        return _sqlite(store, error)
    if isinstance(error, sqlalchemy.exc.SQLAlchemyError | OSError):
        return StoreUnavailable(store, _line(error))
    return None


def _mysql(store: str, error: pymysql.err.Error) -> StoreError:
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    if code in _MYSQL_VALUE or isinstance(error, pymysql.err.DataError | pymysql.err.IntegrityError):
        return StoreRefused(store, f"{_line(error)} ({code})")
    kind = (
        StoreGone
        if code in _MYSQL_AGAIN or isinstance(error, pymysql.err.InterfaceError)
        else StoreUnavailable
    )
    return kind(store, f"{_MYSQL_HINTS.get(code, _line(error))} ({code})")


def _sqlite(store: str, error: sqlite3.Error) -> StoreError:
    # A value of a type that SQLite does not know is an InterfaceError or ProgrammingError, by Python's version.
    bad_type = isinstance(error, sqlite3.InterfaceError | sqlite3.ProgrammingError) and "type" in str(error)
    if bad_type or isinstance(error, sqlite3.IntegrityError | sqlite3.DataError):
        return StoreRefused(store, _line(error))
    text = _line(error)
    if "no such table" in text:
        text = "its tables are missing; run `./tide shards init`"
    return StoreUnavailable(store, text)


def _line(error: BaseException) -> str:
    args = error.args
    text = args[1] if len(args) > 1 and isinstance(args[0], int) else error
    return " ".join(str(text).split())[:300] or type(error).__name__
