"""Profile, sessions and purchases over real stores, and when Redis alone may answer."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import orjson
import pytest
import redis

from clicktide import keys
from clicktide.member import members
from clicktide.row import EVENT_ID, EXTRA, OCCURRED_AT, SHARD, position_of
from clicktide.shards import shard_of
from clicktide.sql import SqlStore

pytestmark = [pytest.mark.embedded, pytest.mark.usefixtures("both_ways")]
MINUTE = 60_000


@pytest.fixture
def now():
    return time.time_ns() // 1_000_000 - 5000


def event(i, at, kind="view", user="u1", **more):
    base = {"event_id": f"e{i:05}", "type": kind, "user_id": user, "occurred_at": at}
    if kind in {"order", "pay", "refund"}:
        base |= {"order_id": f"o{i}", "amount": 100 + i}
    return {**base, **more}


def stored(place, events, *, in_redis=True, in_sql=True):
    rows = place.rows(events)
    if in_redis:
        place.apply(rows)
    if in_sql:
        place.persist(rows)
    return rows


class Asked:
    """Counts what is asked of the stores."""

    def __init__(self, services) -> None:
        self.counts = Counter()
        for name in ("redis", "sql"):
            setattr(services.stores, name, self._counted(name, getattr(services.stores, name)))
        for name, short in (("redis", "redis_soon"), ("sql", "sql_now")):
            setattr(services.stores, short, self._short(name, getattr(services.stores, short)))

    def _counted(self, name, ask):
        async def counted(*given):
            self.counts[name] += 1
            return await ask(*given)

        return counted

    def _short(self, name, ask):
        def counted(*given):
            found = ask(*given)
            # False and None: it has to be asked the long way, and is counted there.
            self.counts[name] += bool(found)
            return found

        return counted


def test_a_profile_sums_all_events(place, now):
    stored(
        place,
        [
            event(1, now - 5 * MINUTE, category_id="7", brand_id="b", gender="male", province="北京"),
            event(2, now - 4 * MINUTE, "cart", category_id="8", province="四川", age_range="25-29"),
            event(3, now - 3 * MINUTE, "pay", category_id="8", gender="female"),
            event(4, now - 2 * MINUTE, "refund"),
        ],
    )
    answer = place.get("/v1/users/u1/profile")
    body = answer.json()
    assert body["counts"] == {
        "view": 1, "click": 0, "cart": 1, "favorite": 0, "order": 0, "pay": 1, "refund": 1,
    }  # fmt: skip
    assert (body["events"], body["spend"], body["refunds"]) == (4, 103, 104)
    assert body["categories"] == [{"category_id": "8", "events": 2}, {"category_id": "7", "events": 1}]
    assert body["brands"] == [{"brand_id": "b", "events": 1}]
    assert (body["first_seen"], body["last_seen"]) == (now - 5 * MINUTE, now - 2 * MINUTE)
    assert (body["province"], body["gender"], body["age_range"]) == ("四川", "female", "25-29")
    assert (body["approximate"], body["degraded"], body["user_id"]) == (False, [], "u1")
    assert answer.headers["cache-control"] == "no-store"


def test_of_a_user_whom_redis_holds_wholly_sql_is_asked_once(place, now):
    stored(place, [event(i, now - i) for i in range(5)])

    async def work(client, services):
        asked = Asked(services)
        first = (await client.get("/v1/users/u1/timeline")).json()
        after_first = asked.counts["sql"]
        place.apply(place.rows([event(9, now + 1)]))
        second = (await client.get("/v1/users/u1/timeline")).json()
        profile = (await client.get("/v1/users/u1/profile")).json()
        sessions = (await client.get("/v1/users/u1/sessions")).json()
        return first, second, profile, sessions, after_first, asked.counts["sql"]

    first, second, profile, sessions, after_first, in_the_end = place.ask(work)
    assert [e["event_id"] for e in first["events"]] == [f"e{i:05}" for i in range(5)]
    assert (len(second["events"]), profile["events"], sessions["sessions"][0]["events"]) == (6, 6, 6)
    assert second["next"] is None
    assert (after_first, in_the_end) == (1, 1)


def test_what_left_redis_is_asked_of_sql_however_often(place, now):
    """The newest events are in Redis, one of 40 days ago in SQL only: no remembered answer may hide it."""
    stored(place, [event(1, now - 40 * 86_400_000, "pay")], in_redis=False)
    stored(place, [event(i, now - i) for i in range(2, 6)])

    async def work(client, _):
        return [
            (
                (await client.get("/v1/users/u1/timeline")).json(),
                (await client.get("/v1/users/u1/profile")).json(),
            )
            for _ in range(3)
        ]

    for timeline, profile in place.ask(work):
        assert [e["event_id"] for e in timeline["events"]][-1] == "e00001"
        assert (profile["events"], profile["spend"], profile["approximate"]) == (5, 101, False)


def test_an_event_that_comes_late_is_in_the_next_profile(place, now):
    """Below what is already summed up: its being there has to be noticed."""
    stored(place, [event(i, now - i * 1000) for i in range(150)])

    async def work(client, _):
        before = (await client.get("/v1/users/u1/profile")).json()
        stored(place, [event(500, now - 140_500, "cart")])
        return before, (await client.get("/v1/users/u1/profile")).json()

    before, after = place.ask(work)
    assert (before["events"], after["events"]) == (150, 151)
    assert after["counts"]["cart"] == 1


def test_a_user_with_more_events_than_redis_keeps(place, now):
    rows = stored(place, [event(i, now - i * 1000, "pay") for i in range(300)])

    async def work(client, services):
        asked = Asked(services)
        found = [(await client.get("/v1/users/u1/profile")).json()]
        for i in range(4):
            stored(place, [event(1000 + 60 * i + n, now + 60 * i + n, "view") for n in range(60)])
            found.append((await client.get("/v1/users/u1/profile")).json())
        return found, asked.counts["sql"]

    found, sql = place.ask(work, timeline__length=200)
    assert len(rows) == 300
    assert [body["events"] for body in found] == [300 + 60 * i for i in range(5)]
    assert {body["spend"] for body in found} == {sum(100 + i for i in range(300))}
    # A late event could be missing, and that is said.
    assert all(body["approximate"] for body in found)
    assert sql == 2  # how many there are, and what the old ones come to


def test_a_user_who_outruns_redis_between_two_profiles(place, now):
    """All that Redis has of him is newer than what was summed up, and some of what came has left it again."""
    stored(place, [event(i, now - i * 1000, "pay") for i in range(300)])

    async def work(client, services):
        asked = Asked(services)
        found = [(await client.get("/v1/users/u1/profile")).json()]
        for i in range(3):
            stored(place, [event(1000 + 250 * i + n, now + 250 * i + n, "pay") for n in range(250)])
            found.append((await client.get("/v1/users/u1/profile")).json())
        return found, asked.counts["sql"]

    found, sql = place.ask(work, timeline__length=200)
    assert [body["events"] for body in found] == [300 + 250 * i for i in range(4)]
    sums = [sum(100 + n for n in [*range(300), *range(1000, 1000 + 250 * i)]) for i in range(4)]
    assert [body["spend"] for body in found] == sums
    assert [body["first_seen"] for body in found] == [now - 299_000] * 4
    assert sql == 2 + 3  # of what came, only what has left Redis is summed up


def test_a_first_page_that_is_all_that_redis_has_asks_redis_once(place, now):
    stored(place, [event(i, now - i * 1000) for i in range(7)])

    async def work(client, services):
        asked = Asked(services)
        answer = await client.get("/v1/users/u1/timeline")
        again = await client.get("/v1/users/u1/timeline")
        return len(answer.json()["events"]), len(again.json()["events"]), dict(asked.counts)

    first, second, asked = place.ask(work)
    assert (first, second) == (7, 7)
    assert asked["sql"] == 1
    assert asked["redis"] <= 2 + 2  # one each, and what `as_of` reads once a second


def test_a_long_history_is_summed_up_once_for_all_who_ask_for_it(place, now):
    stored(place, [event(i, now - i * 1000) for i in range(300)])

    async def work(client, services):
        asked = Asked(services)
        answers = await asyncio.gather(*[client.get("/v1/users/u1/profile") for _ in range(12)])
        return [a.json()["events"] for a in answers], asked.counts["sql"]

    events, sql = place.ask(work, timeline__length=200)
    assert events == [300] * 12
    assert sql == 2


def test_one_who_leaves_does_not_take_those_along_who_wait_for_the_same_history(place, now):
    stored(place, [event(i, now - i * 1000) for i in range(300)])

    async def work(_client, services):
        (timeline,) = [o.handler for o in services.operations if o.path.endswith("/timeline")]
        histories = timeline.__self__._histories
        asking = [asyncio.create_task(histories.tally("u1")) for _ in range(4)]
        while "u1" not in histories._learning:  # noqa: ASYNC110 - Redis answers in between
            await asyncio.sleep(0)
        for _ in range(3):
            await asyncio.sleep(0)  # the others come to wait for the first
        asking[1].cancel()
        found = await asyncio.gather(*asking, return_exceptions=True)
        return [f if isinstance(f, BaseException) else f[0].events + len(f[1]) for f in found]

    found = place.ask(work, timeline__length=200)
    assert isinstance(found[1], asyncio.CancelledError)
    assert found[0] == found[2] == found[3] == 300


def test_when_redis_has_lost_a_user_sql_answers(place, now):
    stored(place, [event(i, now - i) for i in range(120)])
    client = redis.Redis.from_url(place.server.url)

    async def work(http, _):
        whole = (await http.get("/v1/users/u1/profile")).json()
        client.delete(keys.timeline("t", shard_of("u1", 8), "u1"))
        place.apply(place.rows([event(500, now + 1)]))
        place.persist(place.rows([event(500, now + 1)]))
        return (
            whole,
            (await http.get("/v1/users/u1/profile")).json(),
            (await http.get("/v1/users/u1/timeline", params={"limit": 200})).json(),
        )

    whole, profile, timeline = place.ask(work)
    client.close()
    assert (whole["events"], profile["events"], len(timeline["events"])) == (120, 121, 121)


def test_when_redis_has_lost_everything_sql_answers(place, now):
    stored(place, [event(i, now - i, "pay") for i in range(7)])
    client = redis.Redis.from_url(place.server.url)

    async def work(http, _):
        client.delete(keys.timeline("t", shard_of("u1", 8), "u1"))
        return [
            (await http.get(f"/v1/users/u1/{w}")).json()
            for w in ("profile", "timeline", "purchases", "sessions")
        ]

    profile, timeline, purchases, sessions = place.ask(work)
    client.close()
    assert profile["events"] == len(timeline["events"]) == len(purchases["purchases"]) == 7
    assert sum(s["events"] for s in sessions["sessions"]) == 7


def test_sessions_by_id_and_by_time_in_pages(place, now):
    events = [
        *(event(i, now - i * MINUTE, session_id="a") for i in range(3)),
        *(event(10 + i, now - i * MINUTE - 500) for i in range(3)),
        *(event(20 + i, now - (30 + i) * MINUTE, session_id="a", item_id=str(i)) for i in range(2)),
        event(30, now - 50 * MINUTE, "pay"),
    ]
    stored(place, events)

    async def work(client, _):
        whole = (await client.get("/v1/users/u1/sessions")).json()
        pages, cursor = [], None
        while True:
            params = {"limit": 1, **({"cursor": cursor} if cursor else {})}
            body = (await client.get("/v1/users/u1/sessions", params=params)).json()
            pages += body["sessions"]
            cursor = body["next"]
            if cursor is None:
                return whole, pages

    whole, pages = place.ask(work)
    assert [(s["session_id"], s["events"]) for s in whole["sessions"]] == [
        ("a", 3), (None, 3), ("a", 2), (None, 1),
    ]  # fmt: skip
    assert whole["next"] is None
    assert whole["sessions"][2]["items"] == 2
    assert whole["sessions"][3]["spend"] == 130
    assert (whole["sessions"][0]["from"], whole["sessions"][0]["to"]) == (now - 2 * MINUTE, now)
    assert all(s["complete"] for s in whole["sessions"])
    assert pages == whole["sessions"]


def test_purchases_are_the_events_with_money(place, now):
    stored(
        place,
        [
            event(1, now - 4000),
            event(2, now - 3000, "order", order_id="o", category_id="7"),
            event(3, now - 2000, "pay", order_id="o"),
            event(4, now - 1000, "click"),
            event(5, now, "refund", order_id="o"),
        ],
    )
    stored(place, [event(6, now, user="u2")])

    async def work(client, _):
        first = (await client.get("/v1/users/u1/purchases", params={"limit": 2})).json()
        second = (await client.get("/v1/users/u1/purchases", params={"cursor": first["next"]})).json()
        window = {"since": now - 2500, "until": now}
        within = (await client.get("/v1/users/u1/purchases", params=window)).json()
        return first, second, within, (await client.get("/v1/users/u2/purchases")).json()

    first, second, within, looker = place.ask(work)
    assert [p["type"] for p in first["purchases"]] == ["refund", "pay"]
    assert second["purchases"] == [
        {
            "at": now - 3000, "event_id": "e00002", "type": "order", "order_id": "o", "item_id": None,
            "category_id": "7", "merchant_id": None, "brand_id": None, "amount": 102, "quantity": 1,
        }
    ]  # fmt: skip
    assert second["next"] is None
    assert [p["type"] for p in within["purchases"]] == ["pay"]
    # This user is known, and has bought nothing.
    assert looker["purchases"] == []


@pytest.mark.parametrize("what", ["timeline", "profile", "sessions", "purchases"])
def test_a_user_of_whom_nothing_is_stored_is_404(place, what):
    answer = place.get(f"/v1/users/nobody/{what}")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_user")


@pytest.mark.parametrize(
    ("what", "params", "code"),
    [
        ("profile", {"limit": 3}, "bad_parameter"),
        ("sessions", {"limit": 0}, "bad_parameter"),
        ("sessions", {"type": "view"}, "bad_parameter"),
        ("sessions", {"cursor": "W10"}, "bad_cursor"),
        ("sessions", {"cursor": "WzEsImEiLDFd"}, "bad_cursor"),
        ("purchases", {"since": "then"}, "bad_parameter"),
        ("purchases", {"cursor": "zzz"}, "bad_cursor"),
    ],
)
def test_bad_parameters(place, what, params, code):
    answer = place.get(f"/v1/users/u1/{what}", **params)
    assert (answer.status_code, answer.json()["code"]) == (400, code)


def test_with_sql_away_a_profile_is_what_redis_has_and_says_so(place, now):
    stored(place, [event(i, now - i) for i in range(3)], in_sql=False)

    async def work(client, _):
        return [await client.get(f"/v1/users/u1/{what}") for what in ("profile", "sessions", "purchases")]

    away = f"sqlite:///{place.folder}/missing/s0.sqlite"
    profile, sessions, purchases = place.ask(work, sql__dsns=away)
    assert (profile.json()["events"], profile.json()["approximate"]) == (3, True)
    assert profile.json()["degraded"] == ["mysql.0"]
    assert sessions.json()["sessions"][0]["events"] == 3
    # No purchase in Redis, and nobody to ask for older ones.
    assert (purchases.status_code, purchases.json()["code"]) == (503, "store_unavailable")
    assert purchases.headers["retry-after"]


def test_with_redis_hanging_all_comes_from_sql(place, now, server):
    stored(place, [event(i, now - i, "pay") for i in range(3)], in_redis=False)

    async def work(client, _):
        server.pause()
        try:
            return [
                (await client.get(f"/v1/users/u1/{w}")).json() for w in ("profile", "sessions", "purchases")
            ]
        finally:
            server.resume()

    profile, sessions, purchases = place.ask(work, http__store_timeout_s=1.5)
    assert (profile["events"], profile["spend"]) == (3, 303)
    assert sessions["sessions"][0]["spend"] == 303
    assert len(purchases["purchases"]) == 3
    assert all("redis" in body["degraded"] for body in (profile, sessions, purchases))


def test_an_erased_user_is_not_an_unknown_one(place, now):
    stored(place, [event(i, now - i, "order") for i in range(3)])
    shard = shard_of("u1", 8)
    client = redis.Redis.from_url(place.server.url)
    sql = SqlStore(place.settings)

    async def work(http, _):
        before = (await http.get("/v1/users/u1/profile")).json()
        sql.entomb(shard, "u1", now)
        sql.erase_user(shard, "u1")
        client.delete(keys.timeline("t", shard, "u1"))
        place.send("events", b'{"event_id":"late one"}', key=b"u1")
        users = [
            await http.get(f"/v1/users/u1/{w}") for w in ("timeline", "profile", "sessions", "purchases")
        ]
        return before, users, await http.get("/v1/events/late%20one"), await http.get("/v1/orders/o1")

    before, users, event_, order = place.ask(work)
    sql.close()
    client.close()
    assert before["events"] == 3
    assert {(a.status_code, a.json()["code"]) for a in users} == {(404, "erased_user")}
    assert (event_.status_code, event_.json()["code"]) == (404, "erased_event")
    assert (order.status_code, order.json()["code"]) == (404, "unknown_order")


ODD_IDS = ["a", "a!", 'a"', 'a"b', "a\\", "a\n", "a\x01", "a0", "aé", "b", "漢", "é"]


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 12])
@pytest.mark.parametrize("earlier", [0, 3], ids=["this_release", "with_members_of_earlier_ones"])
def test_pages_have_each_event_once_in_order_whatever_its_id(place, now, limit, earlier):
    """Redis orders the events of one millisecond by their bytes, where an escaped id stands elsewhere."""
    rows = stored(place, [event(i, now - i // 9, event_id=odd, page="/") for i, odd in enumerate(ODD_IDS)])
    server = redis.Redis.from_url(place.server.url)
    line = keys.timeline("t", rows[0][SHARD], "u1")
    for row in rows[:: len(rows) // earlier] if earlier else []:
        server.zrem(line, *members([row]))
        server.zadd(line, {orjson.dumps(row[: EXTRA + 1]): row[OCCURRED_AT]})
    assert server.zcard(line) == len(rows)
    server.close()

    async def work(client, _services):
        seen, params = [], {"limit": limit}
        while True:
            page = (await client.get("/v1/users/u1/timeline", params=params)).json()
            seen += page["events"]
            if page["next"] is None:
                break
            params["cursor"] = page["next"]
        return seen, (await client.get("/v1/users/u1/profile")).json()

    seen, profile = place.ask(work)
    assert [e["event_id"] for e in seen] == [
        row[EVENT_ID] for row in sorted(rows, key=position_of, reverse=True)
    ]
    assert all(e["page"] == "/" for e in seen)
    assert profile["events"] == len(rows)


def test_an_old_event_in_redis_does_not_stand_for_a_new_one_that_it_lacks(place, now):
    """As many events in both, but not the same."""
    newest, older = event(1, now), event(2, now - 2000)
    stored(place, [event(3, now - 40 * 86_400_000)], in_sql=False)
    stored(place, [newest, event(4, now, user="u2")])
    stored(place, [older], in_redis=False)

    async def work(client, _services):
        await client.get("/v1/users/u2/timeline")  # a service's first answer goes the long way
        return (await client.get("/v1/users/u1/timeline")).json()["events"]

    assert [e["event_id"] for e in place.ask(work)][:2] == ["e00001", "e00002"]
