"""Migrations: idempotent, safe when many do them at once, and the tables are those that the statements name."""

from __future__ import annotations

import json
import sqlite3
import threading

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sql_dialects import DIALECTS, fresh_dsns, open_store, own_server, row

from clicktide.errors import ClicktideError, SettingError, StoreUnavailable
from clicktide.row import EXTRA, GENDERS, TYPES
from clicktide.sql import migrate, schema, sqlite_dsn
from clicktide.sql.engine import open_engine, parse_dsn
from clicktide.sql.migrations import FOLDER


@pytest.fixture(params=DIALECTS)
def dsn(request, tmp_path):
    return fresh_dsns(request.param, tmp_path, 1, to_break=True)[0]


def test_the_tables_are_those_of_the_schema(dsn):
    inspector = sa.inspect(open_engine(parse_dsn(dsn), 5.0))
    assert set(inspector.get_table_names()) == {*schema.metadata.tables, "alembic_version"}
    for table in schema.metadata.tables.values():
        assert {c["name"] for c in inspector.get_columns(table.name)} == set(table.columns.keys())
    assert inspector.get_pk_constraint("events")["constrained_columns"] == ["shard", "event_id"]
    assert inspector.get_pk_constraint("orders")["constrained_columns"] == ["shard", "order_id"]
    assert [i["column_names"] for i in inspector.get_indexes("events")] == [
        ["shard", "user_id", "occurred_at"]
    ]


def test_every_type_and_gender_can_be_stored(dsn):
    store = open_store([dsn])
    rows = [row(f"{t}{g}", type=t, gender=g, order_id="o", amount=1) for t in TYPES for g in GENDERS]
    assert store.write(0, rows).new == len(rows)
    assert all(store.event(r[0]) == r for r in rows)


def test_again_keeps_what_is_there(dsn):
    store = open_store([dsn])
    store.write(0, [row("e")])
    migrate(dsn)
    assert store.event("e") == row("e")


FULL = row(
    "e'1\\",
    type="pay",
    order_id='o"1',
    amount=2**53 + 1,
    quantity=7,
    gender="female",
    province='a\\"b',
    extra='{"page":"/a\\"b","attributes":{"x":[1,null]}}',
    offset=2**40,
)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_rows_of_the_first_revision_come_over(dialect, tmp_path):
    dsn = sqlite_dsn(f"{tmp_path}/old.sqlite") if dialect == "sqlite" else own_server().dsn("first_revision")
    rows = [FULL, row("plain"), row("none", province=None, item_id=None)]
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    engine = open_engine(parse_dsn(dsn), 5.0, create=True)
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        old = sa.table("events", *(sa.column(name) for name in schema.EVENT_COLUMNS))
        for one in rows:
            connection.execute(old.insert().values(dict(zip(schema.EVENT_COLUMNS, one, strict=True))))
        if dialect != "sqlite":
            connection.commit()
    migrate(dsn)
    store = open_store([dsn])
    assert store.write(0, rows) == (0, [])
    assert [store.event(r[0]) for r in rows] == rows
    store.close()


def test_the_view_has_a_column_for_every_field(dsn):
    store = open_store([dsn])
    store.write(0, [FULL, row("plain")])
    query = sa.select(*(schema.events.c[name] for name in schema.EVENT_COLUMNS)).order_by(
        schema.events.c.event_id
    )
    with open_engine(parse_dsn(dsn), 5.0).connect() as connection:
        found = [list(r) for r in connection.execute(query)]
        store.write(0, [row("caps", province="A"), row("small", province="a")])
        places = sa.select(schema.events.c.province, sa.func.count()).group_by(schema.events.c.province)
        assert {tuple(r) for r in connection.execute(places)} >= {("A", 1), ("a", 1)}
    for one in found:
        one[EXTRA] = json.loads(one[EXTRA]) if one[EXTRA] else None
    assert found == [[*FULL[:EXTRA], json.loads(FULL[EXTRA]), *FULL[EXTRA + 1 :]], row("plain")]


def test_a_newer_version_is_left_alone(dsn):
    with open_engine(parse_dsn(dsn), 5.0).begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num='9999'")
    with pytest.raises(StoreUnavailable, match="9999"):
        migrate(dsn)


def at_once(dsn, n=4):
    errors: list[BaseException] = []

    def run():
        try:
            migrate(dsn)
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=run) for _ in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return errors


def test_several_at_once_on_sqlite(tmp_path):
    dsn = sqlite_dsn(f"{tmp_path}/new.sqlite")
    assert at_once(dsn) == []
    assert open_store([dsn]).write(0, [row("e")]).new == 1


def test_a_new_sqlite_file_that_another_has_is_waited_for(tmp_path):
    path = tmp_path / "new.sqlite"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.3, other.execute, ("ROLLBACK",))
    timer.start()
    migrate(sqlite_dsn(str(path)))
    timer.join()
    other.close()


@pytest.mark.service
def test_several_at_once_on_mariadb():
    dsn = own_server().dsn("several_at_once")
    assert at_once(dsn) == []
    assert open_store([dsn]).write(0, [row("e")]).new == 1


@pytest.mark.service
def test_what_cannot_be_reached_is_named_without_its_password(tmp_path):
    port = own_server().port
    with pytest.raises(StoreUnavailable) as caught:
        migrate(f"mysql+pymysql://nobody:secret@127.0.0.1:{port}/x")
    assert "nobody" in str(caught.value)
    assert "secret" not in str(caught.value)
    with pytest.raises(StoreUnavailable, match="does not exist"):
        migrate(f"mysql+pymysql://root@127.0.0.1:{port}/no_such_database")


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(StoreUnavailable, match="unable to open"):
        migrate(sqlite_dsn(f"{tmp_path}/none/x.sqlite"))
    with pytest.raises(ClicktideError, match="from a checkout"):
        migrate(sqlite_dsn(f"{tmp_path}/x.sqlite"), folder=tmp_path / "none")


@pytest.mark.parametrize(
    "bad", ["sqlite://", "sqlite:///:memory:", "postgresql://h/d", "mysql://h", "nonsense", "x://"]
)
def test_a_bad_dsn_is_refused(bad):
    with pytest.raises(SettingError, match=r"sql\.dsns"):
        migrate(bad)
