"""Opens a DSN: SQLAlchemy's pool over PyMySQL or sqlite3, set up so that nothing is lost silently.

MySQL: strict mode, backslash escapes and double quotes for text pinned for every session, READ COMMITTED, and every
read and write on the socket ends within the timeout. SQLite: WAL, a sync at every commit, a busy timeout.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import sqlalchemy as sa
import sqlalchemy.exc
from pymysql.constants import CLIENT
from sqlalchemy import event
from sqlalchemy.engine import URL, Engine, make_url

from clicktide.errors import SettingError
from clicktide.settings import Settings
from clicktide.sql.bulk import BulkConnection
from clicktide.sql.sqlite import when_free

# Without ANSI_QUOTES and NO_BACKSLASH_ESCAPES: clicktide.sql.mysql writes JSON strings as literals.
_SQL_MODE = "STRICT_ALL_TABLES,STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"
_RECYCLE_S = 3600
_WAL_PAGES = 4000  # 16 MiB
_CACHE_KIB = 4096


def sqlite_dsn(path: str) -> str:
    """The DSN of an SQLite file, whatever characters its path has."""
    return "sqlite:///" + quote(str(path), safe="/")


def parse_dsn(dsn: str) -> URL:
    """The DSN as a URL with its driver; raises `SettingError` for one that is neither MySQL nor an SQLite file."""
    try:
        url = make_url(dsn)
    except sqlalchemy.exc.ArgumentError as e:
        raise SettingError(
            f"setting sql.dsns: expected SQLAlchemy URLs, got {dsn.rsplit('@', maxsplit=1)[-1]!r}"
        ) from e
    backend = url.get_backend_name()
    if backend in {"mysql", "mariadb"} and url.database:
        return url.set(drivername="mysql+pymysql")
    if backend == "sqlite" and url.database not in {None, "", ":memory:"}:
        return url.set(drivername="sqlite", database=unquote(str(url.database)))
    raise SettingError(
        "setting sql.dsns: expected mysql+pymysql://user:password@host:port/database or sqlite:///file, got "
        + url.render_as_string(hide_password=True)
    )


def dsns_of(settings: Settings) -> list[str]:
    """The DSNs of `sql.dsns`, those of MySQL with `sql.ca_file` to check their servers by; raises `SettingError`."""
    dsns, ca_file = settings.text("sql.dsns").split(), settings.text("sql.ca_file")
    if not ca_file:
        return dsns
    if not Path(ca_file).is_file():
        raise SettingError(f"setting sql.ca_file: expected a PEM file, there is none at {ca_file}")
    return [_with_ca(dsn, ca_file) for dsn in dsns]


def _with_ca(dsn: str, ca_file: str) -> str:
    url = parse_dsn(dsn)
    if url.get_backend_name() == "sqlite" or "ssl_ca" in url.query:
        return dsn
    return url.update_query_dict({"ssl_ca": ca_file}).render_as_string(hide_password=False)


def open_engine(url: URL, timeout_s: float, *, create: bool = False) -> Engine:
    """An engine for `url` (see `parse_dsn`); connects at first use. `create`: an SQLite file may be made."""
    common: dict[str, Any] = {"pool_timeout": timeout_s, "pool_recycle": _RECYCLE_S, "pool_use_lifo": True}
    if url.get_backend_name() == "sqlite":
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", **common)
        _set_up_sqlite(engine, timeout_s, "rwc" if create else "rw")
    else:
        engine = sa.create_engine(url, isolation_level="READ COMMITTED", **common)
        _set_up_mysql(engine, timeout_s)
    return engine


def _set_up_sqlite(engine: Engine, timeout_s: float, mode: str) -> None:
    @event.listens_for(engine, "do_connect")
    def connecting(_dialect: Any, _record: Any, args: list[Any], options: dict[str, Any]) -> None:
        # Without mode=rw a file that was deleted would come back as an empty one.
        args[0] = f"file:{quote(args[0])}?mode={mode}"
        options.update(uri=True, timeout=timeout_s, isolation_level=None)

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        # Of two that make a file, SQLite makes neither wait for the other.
        when_free(lambda: connection.execute("PRAGMA journal_mode=WAL"), timeout_s, time.monotonic)
        connection.execute("PRAGMA synchronous=FULL")
        # Ids are random: with the default (1000 pages) a checkpoint writes most pages of the indexes again and again.
        connection.execute(f"PRAGMA wal_autocheckpoint={_WAL_PAGES}")
        connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")


def _set_up_mysql(engine: Engine, timeout_s: float) -> None:
    wait = max(1, math.floor(timeout_s))
    session = f"SET SESSION sql_mode='{_SQL_MODE}', innodb_lock_wait_timeout={wait}"

    @event.listens_for(engine, "do_connect")
    def connecting(_dialect: Any, _record: Any, args: list[Any], options: dict[str, Any]) -> Any:
        # With FOUND_ROWS a duplicate left as it was would count as an affected row, like a new one.
        options["client_flag"] = options.get("client_flag", 0) & ~CLIENT.FOUND_ROWS
        options.update(
            charset="utf8mb4",
            init_command=session,
            connect_timeout=timeout_s,
            read_timeout=timeout_s,
            write_timeout=timeout_s,
        )
        return BulkConnection(*args, **options)
