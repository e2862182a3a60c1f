"""Stores that hang, are away, or come back: degraded answers or 503, in time, never a 500."""

from __future__ import annotations

import asyncio
import time

import orjson
import pytest
import redis

from clicktide import keys

pytestmark = [pytest.mark.embedded, pytest.mark.usefixtures("both_ways")]
TIMEOUT_S = 1.5


def event(i, **more):
    """The higher `i`, the older, however long it takes to make them."""
    return {
        "event_id": f"e{i}",
        "type": "view",
        "user_id": "u1",
        "occurred_at": time.time_ns() // 1_000_000 - i * 1000,
        **more,
    }


@pytest.fixture
def hanging(server):
    """Calls that make Redis hang and answer again; it always answers again after the test."""
    yield server
    server.resume()


async def timed(call):
    started = time.monotonic()
    return await call, time.monotonic() - started


def test_with_redis_hanging_metrics_are_the_last_ones_and_say_so(place, hanging):
    place.apply(place.rows([event(1)]))

    async def work(client, _):
        good = (await client.get("/v1/metrics/events")).json()
        hanging.pause()
        first, took = await timed(client.get("/v1/metrics/events"))
        again = [await timed(client.get("/v1/metrics/events")) for _ in range(3)]
        other = await client.get("/v1/metrics/genders")
        hanging.resume()
        deadline = time.monotonic() + 10
        while (back := (await client.get("/v1/metrics/genders"))).status_code != 200:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        return good, first, took, again, other, back

    good, first, took, again, other, back = place.ask(work, http__store_timeout_s=TIMEOUT_S)
    assert {answer.status_code for answer, _ in [(first, took), *again]} == {200}
    assert first.json()["totals"] == good["totals"]
    assert first.json()["as_of"] == good["as_of"]
    assert "redis" in first.json()["degraded"]
    assert took < 10
    # The breaker is open: nobody waits for a store that is known to be away.
    assert min(took for _, took in again) < TIMEOUT_S
    assert (other.status_code, other.json()["code"]) == (503, "store_unavailable")
    assert "retry-after" in other.headers
    assert back.json()["totals"]["unknown"] == 1


def test_with_redis_hanging_a_timeline_comes_from_sql(place, hanging):
    place.persist(place.rows([event(i) for i in range(3)]))

    async def work(client, _):
        hanging.pause()
        return await timed(client.get("/v1/users/u1/timeline"))

    answer, took = place.ask(work, http__store_timeout_s=TIMEOUT_S)
    body = answer.json()
    assert [e["event_id"] for e in body["events"]] == ["e0", "e1", "e2"]
    assert "redis" in body["degraded"]
    assert took < 10


def test_with_sql_away_a_timeline_is_what_redis_has_and_can_go_on_later(place):
    place.apply(place.rows([event(i) for i in range(3)]))

    async def work(client, _):
        first = await client.get("/v1/users/u1/timeline")
        return first, await client.get("/v1/users/nobody/timeline"), await client.get("/v1/orders/o1")

    away = f"sqlite:///{place.folder}/missing/s0.sqlite"
    first, nobody, order = place.ask(work, sql__dsns=away)
    assert first.status_code == 200
    assert len(first.json()["events"]) == 3
    assert first.json()["next"]
    assert first.json()["degraded"] == ["mysql.0"]
    assert (nobody.status_code, order.status_code) == (503, 503)


def test_with_everything_away_nothing_is_a_500_and_status_still_answers(place, hanging):
    paths = [
        "/v1/metrics/events", "/v1/metrics/gmv?window=10m&slide=2m", "/v1/metrics/categories", "/v1/metrics/uv",
        "/v1/users/u1/timeline", "/v1/orders/o", "/v1/events/e",
    ]  # fmt: skip

    async def work(client, _):
        hanging.pause()
        return [await client.get(p) for p in paths], await client.get("/v1/status")

    answers, status = place.ask(
        work,
        http__store_timeout_s=0.3,
        sql__dsns=f"sqlite:///{place.folder}/missing/s0.sqlite",
        log__path=str(place.folder),
    )
    assert {a.status_code for a in answers} == {503}
    assert status.status_code == 200
    body = status.json()
    assert body["state"] == "degraded"
    assert body["lag"] is None
    assert body["stores"] == {"redis": "away", "log": "away", "mysql.0": "away"}


def test_open_breakers_of_workers_show_in_every_answer_until_they_are_silent(place):
    client = redis.Redis.from_url(place.server.url)
    now = time.time_ns() // 1_000_000
    fresh = {"at": now, "breakers": {"mysql.1": "open"}}
    old = {"at": now - 120_000, "breakers": {"mysql.0": "open"}}
    client.hset(keys.workers("t"), mapping={"persist:4": orjson.dumps(fresh), "persist:5": orjson.dumps(old)})
    client.close()

    async def work(client, _):
        status = (await client.get("/v1/status")).json()
        return status, (await client.get("/v1/metrics/events")).json()

    status, metrics = place.ask(work)
    assert status["breakers"] == {"persist:4/mysql.1": "open"}
    assert metrics["degraded"] == status["degraded"] == ["mysql.1"]
