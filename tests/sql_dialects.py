"""Fresh SQL stores in both dialects for tests: SQLite files, and databases of a MariaDB or MySQL server.

The server is that of TIDE_SQL_DSNS, if that names MySQL, else one of our own, started at first use and ended with the
process. Where neither can be had a test is skipped, or fails under CI=true.
"""

from __future__ import annotations

import atexit
import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from mariadb_server import MariaDbServer, have_mariadb, mariadb_server

from clicktide.settings import Settings
from clicktide.sql import SqlStore, migrate, sqlite_dsn

DIALECTS = [pytest.param("sqlite"), pytest.param("mysql", marks=pytest.mark.service)]
_serial = count()


@cache
def own_server() -> MariaDbServer:
    """The MariaDB server of this test process; skips or fails the test where there is none."""
    if not have_mariadb():
        missing = "mariadb-server is not installed"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    stack = ExitStack()
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tide-sql-"))
    server = stack.enter_context(mariadb_server(Path(folder) / "m"))
    atexit.register(stack.close)
    return server


def fresh_dsns(dialect: str, folder: Path, n: int, *, to_break: bool = False) -> list[str]:
    """`n` migrated DSNs with nothing in them. `to_break`: the test changes the tables themselves."""
    if dialect == "sqlite":
        return [new_sqlite(folder / f"shard {next(_serial)}%.sqlite") for _ in range(n)]
    if not to_break:
        return [_emptied(i) for i in range(n)]
    dsns = [_database() for _ in range(n)]
    for dsn in dsns:
        migrate(dsn)
    return dsns


def new_sqlite(path: Path) -> str:
    """The DSN of a migrated file with nothing in it."""
    path.write_bytes(_migrated_file())
    return sqlite_dsn(str(path))


@cache
def _migrated_file() -> bytes:
    """To migrate a file takes a hundred times as long as to copy one."""
    with tempfile.TemporaryDirectory(prefix="tide-sql-") as folder:
        path = Path(folder) / "shard.sqlite"
        migrate(sqlite_dsn(str(path)))
        assert [each.name for each in Path(folder).iterdir()] == [path.name], "all of it is in the file"
        return path.read_bytes()


@cache
def _kept(number: int) -> tuple[str, sa.Engine]:
    """A database that tests use one after the other: to make one takes a server ten times as long as to empty it."""
    dsn = _database()
    migrate(dsn)
    return dsn, sa.create_engine(sa.make_url(dsn).set(drivername="mysql+pymysql"))


def _emptied(number: int) -> str:
    dsn, engine = _kept(number)
    with engine.begin() as connection:
        for table in ("events", "orders", "erased", "shard_map", "placement"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
    return dsn


def _database() -> str:
    name = f"tide_test_{uuid4().hex[:12]}"
    given = os.environ.get("TIDE_SQL_DSNS", "").split()
    if not given or not given[0].startswith("mysql"):
        return own_server().dsn(name)
    url = sa.make_url(given[0])
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    atexit.register(_drop, engine, name)
    return url.set(database=name).render_as_string(hide_password=False)


def _drop(engine: sa.Engine, name: str) -> None:
    with engine.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name}")


def open_store(dsns: list[str], clock: Callable[[], float] | None = None, **settings: Any) -> SqlStore:
    """A store over `dsns`; settings by their name with `__` for the dot."""
    given = {name.replace("__", "."): value for name, value in settings.items()}
    values = Settings({"sql.dsns": " ".join(dsns), "shards.count": 8, **given})
    return SqlStore(values, clock) if clock else SqlStore(values)


def row(event_id: str, **given: Any) -> list[Any]:
    """A row with the given fields over plain ones."""
    values = {
        "type": "view",
        "user_id": "u1",
        "occurred_at": 1_700_000_000_000,
        "received_at": 1_700_000_000_500,
        "shard": 2,
        "item_id": "i1",
        "category_id": "c1",
        "merchant_id": "m1",
        "brand_id": None,
        "order_id": None,
        "amount": None,
        "quantity": 1,
        "gender": "unknown",
        "age_range": None,
        "province": "广东",
        "channel": None,
        "extra": None,
        "fingerprint": "AbCdEf+/",
        "topic_id": "Zz09+/",
        "partition": 3,
        "offset": 12345,
    }
    assert set(given) <= set(values)
    return [event_id, *(values | given).values()]
