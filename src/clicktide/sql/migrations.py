"""Brings a DSN's tables up to date with Alembic; doing it again changes nothing.

The migrations are in deploy/migrations, which Storm's workers do not have: services and the command line migrate.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.engine import Connection

from clicktide.errors import ClicktideError, StoreUnavailable
from clicktide.sql.engine import open_engine, parse_dsn
from clicktide.sql.failures import translate

FOLDER = Path(__file__).resolve().parents[3] / "deploy" / "migrations"
_LOCK_S = 60.0


def migrate(dsn: str, folder: Path = FOLDER, timeout_s: float = _LOCK_S) -> None:
    """Bring `dsn` to the newest revision; several callers at once wait for each other.

    Raises `SettingError` for a bad DSN, `StoreUnavailable` when it cannot be reached or changed, or is of a newer
    version of Clicktide.
    """
    url = parse_dsn(dsn)
    store = url.render_as_string(hide_password=True)
    if not folder.is_dir():
        raise ClicktideError(f"{store}: no migrations here; migrate from a checkout, not from a worker")
    engine = open_engine(url, timeout_s, create=True)
    try:
        with engine.connect() as connection, _alone(connection, timeout_s):
            _upgrade(connection, folder, store)
    except Exception as e:
        raise (translate(store, e) or e) from e
    finally:
        engine.dispose()


def _upgrade(connection: Connection, folder: Path, store: str) -> None:
    # Imported here: workers and readers import this package, and Alembic would cost them its memory.
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    newest = set(ScriptDirectory.from_config(config).get_heads())
    if set(MigrationContext.configure(connection).get_current_heads()) == newest:
        return
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as e:
        raise StoreUnavailable(store, f"its tables are not of this version of Clicktide ({e})") from e


@contextmanager
def _alone(connection: Connection, timeout_s: float) -> Iterator[None]:
    """The only migration of this DSN; on SQLite also one transaction."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            connection.exec_driver_sql("ROLLBACK")
            raise
        connection.exec_driver_sql("COMMIT")
        return
    name = f"clicktide.migrate.{connection.engine.url.database}"[:64]
    got = connection.exec_driver_sql("SELECT GET_LOCK(%s,%s)", (name, int(timeout_s))).scalar_one()
    if got != 1:
        raise StoreUnavailable(str(connection.engine.url.database), "another migration does not end")
    try:
        yield
        connection.commit()
    finally:
        connection.exec_driver_sql("SELECT RELEASE_LOCK(%s)", (name,))
