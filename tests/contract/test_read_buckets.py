"""What is read of a real Redis is what the aggregate wrote there, and what a hand-made key holds."""

from __future__ import annotations

import asyncio
import random

import orjson
import pytest
import redis
import redis.asyncio
from redis_server import redis_server

from clicktide import keys
from clicktide.log.port import TopicPartition
from clicktide.parse import Parser
from clicktide.read import buckets, lag, timelines
from clicktide.read.plan import Read, both, run, run_async
from clicktide.read.spans import Span, covering
from clicktide.redisstore.store import RedisStore
from clicktide.row import AMOUNT, CATEGORY_ID, GENDER, OCCURRED_AT, PROVINCE, TYPE, USER_ID, position_of
from clicktide.settings import Settings
from clicktide.shards import shard_of

pytestmark = pytest.mark.embedded
NS = "t"
SHARDS = 8
NOW = 1_800_000_000_000 - 1_800_000_000_000 % 3_600_000 + 1_800_000


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def client(url):
    client = redis.Redis.from_url(url)
    client.flushall()
    client.script_flush()
    yield client
    client.close()


@pytest.fixture
def rows(url, client):
    """500 events of 40 users within ten minutes, applied by the pipeline's own store."""
    settings = Settings({"redis.url": url, "redis.namespace": NS, "shards.count": SHARDS})
    parser, rng, out = Parser(settings), random.Random(7), []
    for i in range(500):
        kind = rng.choice(["view", "click", "cart", "order", "pay", "refund"])
        event = {
            "event_id": f"e{i}",
            "type": kind,
            "user_id": f"u{rng.randrange(40)}",
            "occurred_at": NOW - rng.randrange(600_000),
            "gender": rng.choice(["female", "male", "unknown"]),
        }
        if rng.random() < 0.8:
            event |= {
                "province": rng.choice(["四川", "上海市"]),
                "category_id": rng.choice(["1", "22", "at"]),
            }
        if kind in {"order", "pay", "refund"}:
            event |= {"order_id": f"o{i}", "amount": rng.randrange(10**9)}
        out.append(parser.row(orjson.dumps(event).decode(), i, NOW, 0, "topic0"))
    RedisStore(settings).apply(out)
    return out


def test_totals_are_the_sums_of_all_rows(client, rows):
    got = run(client, buckets.totals(NS, SHARDS))
    assert got["n:pay"] == sum(r[TYPE] == "pay" for r in rows)
    assert got["g:female"] == sum(r[GENDER] == "female" for r in rows)
    assert got["gmv"] == sum(r[AMOUNT] for r in rows if r[TYPE] == "pay")
    assert got["refunds"] == sum(r[AMOUNT] for r in rows if r[TYPE] == "refund")
    assert sum(got[f] for f in buckets.EVENT_FIELDS) == len(rows)


@pytest.mark.parametrize("granularity", ["s", "m", "h", "d"])
def test_series_of_every_granularity_add_up_to_the_same(client, rows, granularity):
    span = covering(granularity, NOW - 600_000, NOW + 1)
    found = run(client, buckets.series(NS, SHARDS, span, ["gmv", "n:view"]))
    assert sum(c["gmv"] for c in found.values()) == sum(r[AMOUNT] for r in rows if r[TYPE] == "pay")
    assert set(found) <= set(span.starts)
    for start, counts in found.items():
        inside = [r for r in rows if start <= r[OCCURRED_AT] // 1000 < start + span.step]
        assert counts["n:view"] == sum(r[TYPE] == "view" for r in inside)


def test_a_series_leaves_out_what_lies_beside_its_span(client, rows):
    span = Span("s", NOW // 1000 - 30, 10)
    found = run(client, buckets.series(NS, SHARDS, span, buckets.EVENT_FIELDS))
    expected = sum(span.start <= r[OCCURRED_AT] // 1000 < span.end for r in rows)
    assert sum(sum(c.values()) for c in found.values()) == expected


@pytest.mark.parametrize("span", [None, covering("m", NOW - 600_000, NOW + 1)])
def test_sums_by_category_and_province(client, rows, span):
    categories = run(client, buckets.sums(NS, SHARDS, span, "c:"))
    provinces = run(client, buckets.sums(NS, SHARDS, span, "p:"))
    for name in (None, "1", "22", "at"):
        paid = [r for r in rows if r[TYPE] == "pay" and r[CATEGORY_ID] == name]
        assert categories.get(name or "", 0) == sum(r[AMOUNT] for r in paid)
    assert provinces == {
        name or "": sum(r[PROVINCE] == name for r in rows) for name in {r[PROVINCE] for r in rows}
    }
    assert list(provinces.values()) == sorted(provinces.values(), reverse=True)


def test_distinct_users(client, rows):
    users = {r[USER_ID] for r in rows}
    paid = {r[USER_ID] for r in rows if r[TYPE] == "pay"}
    day = covering("h", NOW - 86_400_000, NOW)
    assert run(client, buckets.distinct(NS, SHARDS, "v", None)) == len(users)
    assert run(client, buckets.distinct(NS, SHARDS, "v", day)) == len(users)
    assert run(client, buckets.distinct(NS, SHARDS, "y", None)) == len(paid)
    by_hour = run(client, buckets.distinct_series(NS, SHARDS, "v", day))
    assert by_hour[NOW // 1000 // 3600 * 3600] == len(users)
    assert sum(by_hour.values()) == len(users)


def test_an_empty_redis_is_all_zeros(client):
    span = covering("s", NOW - 10_000, NOW)
    assert set(run(client, buckets.totals(NS, SHARDS)).values()) == {0}
    assert run(client, buckets.series(NS, SHARDS, span, ["gmv"])) == {}
    assert run(client, buckets.sums(NS, SHARDS, None, "c:")) == {}
    assert run(client, buckets.distinct(NS, SHARDS, "v", None)) == 0


def test_sums_are_exact_for_large_money(client):
    client.hset(keys.bucket(NS, 3, "m", 60), mapping={"c:1": 2**52, "c:2": 1})
    client.hset(keys.bucket(NS, 3, "m", 120), mapping={"c:1": 2**52 - 1})
    got = run(client, buckets.sums(NS, SHARDS, Span("m", 60, 2), "c:"))
    assert got == {"1": 2**53 - 1, "2": 1}


def test_the_async_client_says_the_same_also_when_the_server_has_lost_the_scripts(url, client, rows):
    read: Read = both(
        buckets.totals(NS, SHARDS), buckets.series(NS, SHARDS, covering("s", NOW - 60_000, NOW), ["gmv"])
    )
    expected = run(client, read)
    client.script_flush()

    async def ask():
        async with redis.asyncio.Redis.from_url(url) as asynchronous:
            return await run_async(asynchronous, read)

    assert asyncio.run(ask()) == expected


def test_reading_changes_nothing(client, rows):
    before = sorted((k, client.dump(k)) for k in client.scan_iter() if b":v:" not in k and b":y:" not in k)
    run(client, buckets.series(NS, SHARDS, covering("s", NOW - 60_000, NOW), ["gmv"]))
    run(client, buckets.sums(NS, SHARDS, covering("m", NOW - 60_000, NOW), "p:"))
    run(client, buckets.distinct(NS, SHARDS, "v", None))
    after = sorted((k, client.dump(k)) for k in client.scan_iter() if b":v:" not in k and b":y:" not in k)
    assert after == before


def test_a_timeline_is_newest_first(client, rows):
    user = rows[0][USER_ID]
    got = run(client, timelines.newest(NS, shard_of(user, SHARDS), user, None)).rows
    assert [position_of(r) for r in got] == sorted(
        (position_of(r) for r in rows if r[USER_ID] == user), reverse=True
    )


def test_positions_and_workers_skip_what_cannot_be_read(client):
    client.hset(
        keys.spouts(NS, "tide.events"), mapping={"0": '{"done": 5}', "1": "nonsense", "x": '{"done": 1}'}
    )
    client.hset(keys.workers(NS), mapping={"persist:3": '{"breakers": {"mysql.0": "open"}}', "bad": "["})
    assert run(client, lag.published(NS, ["tide.events", "tide.dead"])) == {
        TopicPartition("tide.events", 0): 5
    }
    assert run(client, lag.workers(NS)) == {"persist:3": {"breakers": {"mysql.0": "open"}}}
