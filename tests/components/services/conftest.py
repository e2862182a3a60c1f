"""One place with everything the services read: a real Redis, the embedded log, two SQLite DSNs; emptied for each test."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import orjson
import pytest
import redis
from redis_server import running
from sql_dialects import new_sqlite

from clicktide import topics
from clicktide.log import open_log
from clicktide.log.port import Outgoing
from clicktide.parse import Parser
from clicktide.redisstore.store import RedisStore
from clicktide.row import SHARD
from clicktide.settings import Settings
from clicktide.sql import SqlStore
from services.application import ROLES, Services

ROOT = Path(__file__).resolve().parents[3]


class Reply:
    """Of a request on the short way: `answer` is the httpx answer, None where it has to go the long way."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[httpx.Response | None] = asyncio.get_running_loop().create_future()

    def finish(self, status, headers, body) -> None:
        self.answer.set_result(httpx.Response(status, headers=list(headers), content=body))

    def serve(self) -> None:
        self.answer.set_result(None)


class AsServed(httpx.AsyncBaseTransport):
    """As `services.connection` does: the short way for requests that have one, else the application."""

    def __init__(self, services: Services) -> None:
        self._services, self._long = services, httpx.ASGITransport(app=services.app)
        self.short = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        scope = {
            "type": "http",
            "method": request.method,
            "path": request.url.path,
            "query_string": request.url.query,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "root_path": "",
            "state": {},
        }
        reply = Reply()
        if self._services.quick is not None and self._services.quick(scope, reply):
            answer = await asyncio.wait_for(reply.answer, 20)
            if answer is not None:
                self.short += 1
                return answer
        return await self._long.handle_async_request(request)


class Place:
    """`settings` names the stores; the methods fill them as the pipeline would. `short`: whether requests may go the short way."""

    short = True

    def __init__(self, folder: Path, server) -> None:
        self.folder, self.server = folder, server
        self.given = {
            "log.path": str(folder / "log.sqlite"),
            "redis.url": server.url,
            "redis.namespace": "t",
            "sql.dsns": " ".join(new_sqlite(folder / f"s{i}.sqlite") for i in range(2)),
            "shards.count": 8,
            "topics.partitions": 2,
            # A stall of the machine is no store that hangs; where one does, the test says how long to wait.
            "http.store_timeout_s": 10.0,
            "http.share_ms": 0,
        }
        self.settings = Settings(self.given)
        self.log = open_log(self.settings)
        self.log.admin().create_topics({f"tide.{name}": 2 for name in topics.ALL})

    def rows(self, events):
        parser = Parser(self.settings)
        now = time.time_ns() // 1_000_000
        return [parser.row(orjson.dumps(e).decode(), i, now, 0, "topic0") for i, e in enumerate(events)]

    def apply(self, rows) -> None:
        """Into Redis."""
        assert not RedisStore(self.settings).apply(rows).failed

    def persist(self, rows) -> None:
        """Into SQL."""
        sql = SqlStore(self.settings)
        by_dsn: dict[int, list] = {}
        for row in rows:
            by_dsn.setdefault(sql.dsn_of(row[SHARD]), []).append(row)
        for dsn, its in by_dsn.items():
            sql.write(dsn, its)
        sql.close()

    def send(self, topic, value, key=b"u", headers=()) -> None:
        self.log.producer().send([Outgoing(f"tide.{topic}", key, value, tuple(headers))], 5)

    def ask(self, work, roles=ROLES, **settings):
        """Runs `work(client, services)` against services in this process."""

        async def main():
            given = {**self.given, **{k.replace("__", "."): v for k, v in settings.items()}}
            services = Services(Settings(given), roles)
            if services.batcher is not None:
                services.batcher.start()
            if services.live is not None:
                services.live.start()
            transport = AsServed(services) if self.short else httpx.ASGITransport(app=services.app)
            try:
                async with httpx.AsyncClient(
                    transport=transport, base_url="http://tide", timeout=20
                ) as client:
                    return await work(client, services)
            finally:
                await services.stop()

        return asyncio.run(main())

    def get(self, path, *, settled=False, **params):
        """One answer; `settled`: once the service knows as of when its answers are."""

        async def work(client, services):
            if settled:
                await services._health.look()
            return await client.get(path, params=params)

        return self.ask(work)

    def environment(self) -> dict[str, str]:
        own = {"TIDE_" + k.upper().replace(".", "_"): str(v) for k, v in self.given.items()}
        kept = {k: v for k, v in os.environ.items() if not k.startswith("TIDE_")}
        return {
            **kept,
            **own,
            "TIDE_CONFIG": str(self.folder / "none.json"),
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}",
        }


@contextmanager
def serving(place: Place, *arguments: str):
    """The services as a process of their own; gives (process, URL)."""
    command = [sys.executable, "-m", "services", "all", "--port", "0", *arguments]
    process = subprocess.Popen(
        command,
        env=place.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=place.folder,
    )
    try:
        line = process.stdout.readline()
        assert "://" in line, process.stderr.read()
        yield process, line.split()[-1]
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        process.stdout.close()
        process.stderr.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    with running(tmp_path_factory.mktemp("redis")) as server:
        yield server


def emptied(server):
    client = redis.Redis.from_url(server.url)
    client.flushall()
    client.close()
    return server


@pytest.fixture
def place(tmp_path, server):
    return Place(tmp_path, emptied(server))


@pytest.fixture(params=["short", "long"])
def both_ways(place, request):
    """The test runs twice: requests may go the short way, and all go through the application."""
    place.short = request.param == "short"


@pytest.fixture
def serve(place):
    return lambda *arguments: serving(place, *arguments)
