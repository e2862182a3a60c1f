"""Servers that are away, slow, full or locked: `StoreUnavailable` in time, and all well again afterwards."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote

import pymysql
import pytest
import sqlalchemy as sa
from mariadb_server import mariadb_server
from sql_dialects import DIALECTS, fresh_dsns, open_store, own_server, row

from clicktide.errors import StoreRefused, StoreUnavailable
from clicktide.sql import migrate

ROWS = [row(f"e{i}", shard=i % 8, type="pay", order_id=f"o{i}", amount=i) for i in range(20)]


@contextmanager
def unavailable(within: float, store: str = "mysql.0", text: str = ""):
    started = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        yield caught
    assert text in str(caught.value)
    assert time.monotonic() - started < within
    assert caught.value.store == store
    assert caught.value.retriable
    assert "\n" not in str(caught.value)


def file_of(dsn: str) -> str:
    return unquote(dsn.removeprefix("sqlite:///"))


# SQLite


@pytest.fixture
def lite(tmp_path):
    dsn = fresh_dsns("sqlite", tmp_path, 1)[0]
    store = open_store([dsn], sql__timeout_s=0.3)
    store.write(0, ROWS[:10])
    yield store, file_of(dsn)
    store.close()


def test_a_locked_file(lite):
    store, path = lite
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with unavailable(3, text="locked"):
        store.write(0, ROWS)
    assert store.counts().events == 10  # readers go on
    other.execute("ROLLBACK")
    assert store.write(0, ROWS) == (10, [])


def test_a_full_disk(lite):
    store, _ = lite

    @sa.event.listens_for(store.dsns[0].engine, "checkout")
    def full(connection, _record, _proxy):
        connection.execute("PRAGMA max_page_count=1")

    with unavailable(3, text="full"):
        store.write(0, [row(f"x{i}", extra="y" * 5000) for i in range(50)])
    sa.event.remove(store.dsns[0].engine, "checkout", full)
    store.close()
    assert store.write(0, ROWS) == (10, [])


def test_a_file_that_is_gone_does_not_come_back_empty(lite):
    store, path = lite
    store.close()
    Path(path).rename(path + ".away")
    with unavailable(3, text="unable to open"):
        store.write(0, ROWS)
    assert not Path(path).exists()
    Path(path + ".away").rename(path)
    assert store.write(0, ROWS) == (10, [])


def test_a_file_that_is_no_database(tmp_path):
    path = tmp_path / "x.sqlite"
    path.write_bytes(b"hello" * 1000)
    store = open_store([f"sqlite:///{path}"])
    with unavailable(3, text="not a database"):
        store.write(0, ROWS)


def test_one_dsn_away_hides_only_its_own(tmp_path):
    dsns = fresh_dsns("sqlite", tmp_path, 2)
    store = open_store(dsns)
    store.write(0, [row("here", shard=0), row("there", shard=1)])
    store.close()
    Path(file_of(dsns[1])).rename(tmp_path / "away")
    assert store.write(0, [row("more", shard=0)]) == (1, [])
    assert store.event("here") == row("here", shard=0)
    assert len(list(store.scan_events(0))) == 2
    for ask in (
        lambda: store.event("there"),
        lambda: store.event("unknown"),
        store.counts,
        lambda: store.ping(1),
    ):
        with unavailable(3, "mysql.1"):
            ask()


WRITER = """
import sys
from sql_dialects import open_store, row
store = open_store(sys.argv[1:])
for n in range(10**6):
    rows = [row(f"{n}-{i}", shard=i % 8, type="pay", order_id=f"{n}-{i}", amount=1) for i in range(50)]
    store.write(0, rows)
    print(n, flush=True)
"""


def killed_writer(dsns: list[str], end) -> int:
    """Runs a writer, calls `end` after its fifth answer, and says how many answers it gave."""
    root = Path(__file__).parents[2]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (root, root / "src", root / "tests"))),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, *dsns],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    answers = 0
    with process:
        for _ in process.stdout:
            answers += 1
            if answers == 5:
                end(process)
    return answers


def whole(store, answers: int) -> None:
    found = [e for (e,) in store.scan_events(0, ["event_id"])]
    slices = {e.split("-")[0] for e in found}
    assert len(found) == 50 * len(slices)  # none is there in part
    assert {str(n) for n in range(answers)} <= slices
    assert store.counts().orders == len(found)


def settled(server) -> None:
    """The server may still be about a dead client's last commit."""
    deadline = time.monotonic() + 60
    with server.admin() as connection, connection.cursor() as cursor:
        while cursor.execute("SELECT 1 FROM information_schema.innodb_trx"):
            assert time.monotonic() < deadline, "a dead writer's transaction stays open"
            time.sleep(0.01)


@pytest.mark.embedded
@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_was_answered_survives_the_kill_of_its_writer(dialect, tmp_path):
    dsns = fresh_dsns(dialect, tmp_path, 1)
    answers = killed_writer(dsns, lambda p: p.send_signal(signal.SIGKILL))
    if dialect == "mysql":
        settled(own_server())
    whole(open_store(dsns), answers)


# MariaDB


@pytest.fixture
def server():
    return own_server()


@pytest.fixture
def maria(server, tmp_path, request):
    dsn = server.dsn("faults_" + tmp_path.name.replace("-", "_")[-40:])
    migrate(dsn)
    store = open_store([dsn], sql__timeout_s=getattr(request, "param", 5.0))
    store.write(0, ROWS[:10])
    yield store
    server.resume()
    store.close()
    server.run(f"DROP DATABASE {sa.make_url(dsn).database}")


@pytest.mark.service
@pytest.mark.parametrize("maria", [1.0], indirect=True)
@pytest.mark.parametrize("connected", [True, False])
def test_a_server_that_hangs(maria, server, connected, monkeypatch):
    tried = []
    write_once = maria.dsns[0]._write_once
    monkeypatch.setattr(maria.dsns[0], "_write_once", lambda work: tried.append(1) or write_once(work))
    if not connected:
        maria.close()
    server.pause()
    with unavailable(20):
        maria.write(0, ROWS)
    assert len(tried) == 1  # what took its time is not tried again
    with unavailable(20):
        maria.event("e1")
    with unavailable(20):
        maria.ping(0)
    server.resume()
    assert maria.write(0, ROWS).conflicts == []
    assert maria.counts() == (20, {"pay": 20}, 20)


def close_connections(server) -> None:
    """The server closes all but its own to this test's database."""
    with server.admin() as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT id FROM information_schema.processlist WHERE id<>CONNECTION_ID() AND db LIKE 'faults%'"
        )
        for (number,) in cursor.fetchall():
            with suppress(pymysql.err.OperationalError):  # gone by itself
                cursor.execute(f"KILL {number}")


@pytest.mark.service
def test_connections_that_the_server_has_closed_are_replaced_unseen(maria, server):
    close_connections(server)
    assert maria.write(0, ROWS) == (10, [])
    close_connections(server)
    assert maria.event("e1") == ROWS[1]


@pytest.mark.service
@pytest.mark.parametrize("maria", [1.0], indirect=True)
def test_a_row_locked_by_another(maria, server):
    database = maria.dsns[0].engine.url.database
    other = server.admin(database)
    other.begin()
    other.cursor().execute("SELECT * FROM orders WHERE order_id='o3' FOR UPDATE")
    with unavailable(20):
        maria.write(0, ROWS)
    other.rollback()
    other.close()
    assert maria.write(0, ROWS) == (10, [])


@pytest.mark.service
def test_a_server_that_only_reads(maria, server, tmp_path):
    database = maria.dsns[0].engine.url.database
    server.run("CREATE USER reader@127.0.0.1")
    server.run(f"GRANT ALL ON {database}.* TO reader@127.0.0.1")
    server.run("SET GLOBAL read_only=1")
    try:
        store = open_store([f"mysql+pymysql://reader@127.0.0.1:{server.port}/{database}"])
        with unavailable(3, text="read-only"):
            store.write(0, ROWS)
        assert store.event("e1") == ROWS[1]
    finally:
        server.run("SET GLOBAL read_only=0")
        server.run("DROP USER reader@127.0.0.1")


@pytest.mark.service
@pytest.mark.embedded
def test_what_was_answered_survives_the_kill_of_the_server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("m")
    with mariadb_server(folder) as mine:
        dsn = mine.dsn("killed")
        migrate(dsn)
        store = open_store([dsn], sql__timeout_s=5.0)
        answers = killed_writer([dsn], lambda _: mine.kill())
        with unavailable(20):
            store.ping(0)
        mine.start()
        whole(store, answers)
        assert store.write(0, ROWS) == (20, [])


@pytest.mark.service
def test_a_server_that_takes_only_small_packets(maria, server):
    server.run("SET GLOBAL max_allowed_packet=1048576")
    try:
        maria.close()
        rows = [row(f"x{i}", extra="x" * 30_000) for i in range(100)]
        assert maria.write(0, rows) == (100, [])
    finally:
        server.run("SET GLOBAL max_allowed_packet=16777216")


@pytest.mark.service
def test_a_bad_value_leaves_the_connection_usable(maria):
    for _ in range(20):
        with pytest.raises(StoreRefused):
            maria.write(0, [row("x" * 65)])
    assert maria.dsns[0].engine.pool.checkedout() == 0
    assert maria.write(0, ROWS) == (10, [])
