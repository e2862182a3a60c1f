"""Real servers that stop answering in the middle (SIGSTOP): what the query service says meanwhile, and how soon."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest
from redis_server import running
from scripted_log import ScriptedLog
from sql_dialects import own_server, row

from clicktide.redisstore.store import RedisStore
from clicktide.row import EVENT_ID, OCCURRED_AT, SHARD, USER_ID
from clicktide.settings import Settings
from clicktide.shards import shard_of
from clicktide.sql import SqlStore, migrate
from services.application import Services

pytestmark = [pytest.mark.service, pytest.mark.embedded]
LIMIT_S = 2.0
# Far above the limit, for a loaded machine; far below what a driver would wait by itself.
SOON_S = 20.0


@pytest.fixture
def servers(tmp_path):
    """A Redis and a MariaDB; both answer again after the test."""
    sql = own_server()
    sql.run("CREATE DATABASE IF NOT EXISTS stopped")
    with running(tmp_path) as server:
        yield server, sql
        server.resume()
        sql.resume()


@pytest.fixture
def settings(servers):
    server, sql = servers
    dsn = sql.dsn("stopped")
    migrate(dsn)
    return Settings(
        {"redis.url": server.url, "sql.dsns": dsn, "shards.count": 8, "http.store_timeout_s": LIMIT_S}
    )


@pytest.fixture
def user(settings, request):
    """A user of three events in both stores, an older one in SQL only."""
    user = f"{request.node.name[:40]}-{time.time_ns()}"
    now = time.time_ns() // 1_000_000
    rows = [row(f"{user[-19:]}{i}", user_id=user, shard=shard_of(user, 8)) for i in range(4)]
    for i, one in enumerate(rows):
        one[OCCURRED_AT] = now - 1000 * i - (40 * 86_400_000 if i == 3 else 0)
    assert not RedisStore(settings).apply(rows[:3]).failed
    store = SqlStore(settings)
    store.write(0, rows)
    store.close()
    assert {r[USER_ID] for r in rows} == {user}
    assert len({r[SHARD] for r in rows}) == 1
    return user, [r[EVENT_ID] for r in rows]


def ask(settings, work):
    async def main():
        services = Services(settings, ["query"], ScriptedLog())
        transport = httpx.ASGITransport(app=services.app)
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://tide", timeout=60) as client:
                return await work(client)
        finally:
            await services.stop()

    return asyncio.run(main())


async def timed(client, path):
    started = time.monotonic()
    answer = await client.get(path)
    assert time.monotonic() - started < SOON_S
    return answer


async def until(client, path, good):
    deadline = time.monotonic() + 60
    while not good(answer := await client.get(path)):
        assert time.monotonic() < deadline, answer.text
        await asyncio.sleep(0.1)
    return answer


def has_all_four(answer):
    return len(answer.json().get("events", ())) == 4


def test_a_stopped_sql_server_costs_what_only_it_has(servers, settings, user):
    name, ids = user
    timeline = f"/v1/users/{name}/timeline"

    async def work(client):
        whole = await until(client, timeline, has_all_four)
        servers[1].pause()
        stopped = [
            await timed(client, path)
            for path in (timeline, f"/v1/users/{name}/profile", "/v1/orders/x", f"/v1/events/{ids[0]}")
        ]
        servers[1].resume()
        back = await until(client, timeline, has_all_four)
        return whole, stopped, back

    whole, (events, profile, order, event), back = ask(settings, work)
    assert [e["event_id"] for e in whole.json()["events"]] == ids
    assert [e["event_id"] for e in events.json()["events"]] == ids[:3]
    # It may go on where nobody could be asked.
    assert events.json()["next"]
    assert "mysql.0" in events.json()["degraded"]
    # What SQL said before still stands, or only Redis is counted and that is said.
    assert profile.json()["events"] == 4 or profile.json()["approximate"]
    assert (order.status_code, event.status_code) == (503, 503)
    assert order.headers["retry-after"]
    assert "mysql.0" not in back.json()["degraded"]


def test_with_redis_and_sql_stopped_it_is_503_and_both_come_back(servers, settings, user):
    name, ids = user
    timeline = f"/v1/users/{name}/timeline"

    async def work(client):
        await until(client, timeline, has_all_four)
        servers[0].pause()
        from_sql = await until(
            client, timeline, lambda a: has_all_four(a) and "redis" in a.json()["degraded"]
        )
        servers[1].pause()
        paths = (timeline, f"/v1/users/{name}/profile", f"/v1/users/{name}/sessions", "/v1/metrics/events")
        neither = [await timed(client, path) for path in paths]
        servers[0].resume()
        servers[1].resume()
        back = await until(client, timeline, has_all_four)
        return from_sql, neither, back

    from_sql, neither, back = ask(settings, work)
    assert [e["event_id"] for e in from_sql.json()["events"]] == ids
    assert "redis" in from_sql.json()["degraded"]
    assert {(a.status_code, a.json()["code"]) for a in neither} == {(503, "store_unavailable")}
    assert all(a.headers["retry-after"] for a in neither)
    assert [e["event_id"] for e in back.json()["events"]] == ids
