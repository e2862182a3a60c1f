"""The query service over real stores: what is stored is what it says."""

from __future__ import annotations

import asyncio
import json
import time
from urllib.parse import quote

import httpx
import pytest

from clicktide import topics
from clicktide.retry.envelope import Envelope, Origin

pytestmark = [pytest.mark.embedded, pytest.mark.usefixtures("both_ways")]


def now_ms():
    return time.time_ns() // 1_000_000


@pytest.fixture(autouse=True)
def one_now():
    """Events are that much apart, however long it takes to make them."""
    global NOW
    NOW = now_ms()


def event(i, kind="view", **more):
    base = {"event_id": f"e{i}", "type": kind, "user_id": "u1", "occurred_at": NOW - 1000 - i}
    if kind in {"order", "pay", "refund"}:
        base |= {"order_id": "o1", "amount": 100 + i}
    return {**base, **more}


@pytest.fixture
def filled(place):
    rows = place.rows(
        [
            event(1, "view", gender="female", province="四川"),
            event(2, "click", gender="male"),
            event(3, "order", category_id="7"),
            event(4, "pay", category_id="7", gender="female"),
            event(5, "pay", category_id="8", user_id="u2", order_id="o2"),
            event(6, "refund", category_id="7"),
        ]
    )
    place.apply(rows)
    place.persist(rows)
    return place


def test_totals_of_all_time(filled):
    async def work(client, services):
        await services._health.look()
        return {
            name: (await client.get(f"/v1/metrics/{name}")).json()
            for name in ("events", "genders", "gmv", "categories", "provinces", "uv")
        }

    got = filled.ask(work)
    totals = {name: body["totals"] for name, body in got.items()}
    assert totals["events"] == {
        "view": 1, "click": 1, "cart": 0, "favorite": 0, "order": 1, "pay": 2, "refund": 1,
    }  # fmt: skip
    assert totals["genders"] == {"female": 2, "male": 1, "unknown": 3}
    assert totals["gmv"] == {
        "gmv": 209, "refunds": 106, "net": 103, "pays": 2, "orders": 1, "payers": 2,
    }  # fmt: skip
    assert totals["categories"] == {"8": 105, "7": 104}
    assert totals["provinces"] == {"": 5, "四川": 1}
    assert totals["uv"] == {"uv": 2, "payers": 2}
    for body in got.values():
        assert body["degraded"] == []
        assert body["from"] is None
        assert abs(body["as_of"] - now_ms()) < 10_000
        assert all("at" in point for point in body["series"])
    assert len(got["events"]["series"]) == 60
    assert sum(p["pay"] for p in got["events"]["series"]) == 2


@pytest.mark.parametrize("params", [{"window": "1m"}, {"window": "10m"}, {"window": "2h"}, {"window": "3d"}])
def test_windows_of_every_size_hold_the_same_events(filled, params):
    body = filled.get("/v1/metrics/gmv", settled=True, **params).json()
    assert body["totals"]["gmv"] == 209
    assert sum(p["gmv"] for p in body["series"]) == 209
    assert body["from"] <= body["as_of"] - 1000 < body["to"]
    assert body["totals"]["payers"] == 2


def test_a_range_before_everything_is_zero(filled):
    before = now_ms() - 3_600_000
    body = filled.get("/v1/metrics/events", **{"from": before - 60_000, "to": before}).json()
    assert set(body["totals"].values()) == {0}


def test_sliding_windows_and_the_alias(filled):
    body = filled.get("/api/realtime-gmv", window="10m", slide="2m").json()
    assert len(body["series"]) == 5
    assert body["series"][-1]["gmv"] == body["totals"]["gmv"] == 209
    assert body["step_ms"] == 600_000


def test_categories_can_be_limited_and_say_so(filled):
    body = filled.get("/v1/metrics/categories", window="1h", limit=1, top=1).json()
    assert body["totals"] == {"8": 105}
    assert body["omitted"] == 1
    assert sum(p["8"] for p in body["series"]) == 105
    assert "7" not in body["series"][0]


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("/v1/metrics/gmv", {"window": "soon"}),
        ("/v1/metrics/gmv", {"colour": "red"}),
        ("/v1/metrics/categories", {"limit": "0"}),
        ("/v1/metrics/uv", {"window": "2d", "slide": "1d"}),
        ("/v1/users/u1/timeline", {"limit": "201"}),
        ("/v1/users/u1/timeline", {"type": "stroll"}),
        ("/v1/users/u1/timeline", {"since": "then"}),
        ("/v1/users/u1/timeline", {"cursor": "zzz"}),
        (f"/v1/users/{'u' * 65}/timeline", {}),
    ],
)
def test_bad_parameters_are_400_problems(place, path, params):
    answer = place.get(path, **params)
    assert answer.status_code == 400
    assert answer.json()["code"] in {"bad_parameter", "bad_cursor"}


def test_a_timeline_from_redis_alone(filled):
    body = filled.get("/v1/users/u1/timeline", limit=2).json()
    assert [e["event_id"] for e in body["events"]] == ["e1", "e2"]
    assert body["events"][0]["province"] == "四川"
    assert body["next"]


def test_a_timeline_goes_on_in_sql_by_cursor_and_has_each_event_once(place):
    rows = place.rows([event(i) for i in range(30)])
    place.persist(rows)
    place.apply(rows[:7])

    async def work(client, _):
        seen, cursor = [], None
        for _ in range(20):
            params = {"limit": 4, **({"cursor": cursor} if cursor else {})}
            body = (await client.get("/v1/users/u1/timeline", params=params)).json()
            seen += [e["event_id"] for e in body["events"]]
            cursor = body["next"]
            if cursor is None:
                return seen
        raise AssertionError(seen)

    assert place.ask(work) == [f"e{i}" for i in range(30)]


def test_a_timeline_by_type_and_time(filled):
    body = filled.get("/v1/users/u1/timeline", type="pay,refund").json()
    assert [e["type"] for e in body["events"]] == ["pay", "refund"]
    assert body["next"] is None
    at = body["events"][0]["occurred_at"]
    body = filled.get("/v1/users/u1/timeline", since=at, until=at + 1).json()
    assert [e["event_id"] for e in body["events"]] == ["e4"]


def test_an_old_event_in_redis_does_not_hide_what_redis_has_lost(place):
    old = now_ms() - 40 * 86_400_000
    rows = place.rows([event(1), event(2, occurred_at=old + 5000), event(3, occurred_at=old)])
    place.persist(rows)
    # The second left Redis with its timeline; the third came late, after that.
    place.apply([rows[0], rows[2]])
    body = place.get("/v1/users/u1/timeline", limit=2).json()
    assert [e["event_id"] for e in body["events"]] == ["e1", "e2"]


def test_users_with_odd_names(place):
    rows = place.rows([event(1, user_id="a/b c%d?语")])
    place.apply(rows)
    place.persist(rows)
    answer = place.get("/v1/users/a%2Fb%20c%25d%3F%E8%AF%AD/timeline")
    assert [e["event_id"] for e in answer.json()["events"]] == ["e1"]


# What an id of an event may hold, though few would choose it.
ODD = [
    "a\nb",
    "a\n",
    "\n",
    "\r",
    "\0",
    "\x1b[31m",
    "\x7f",
    "\x85",
    "\u2028",
    "\ufeff",
    "\U0001f600",
    "/",
    "a//b",
    "\\",
    " ",
]


def test_what_the_parser_takes_as_an_id_can_be_asked_for(place, serve):
    """On a server of its own: between a client and the look-up are two decoders and a router."""
    rows = place.rows([event(i, "order", event_id=x, order_id=x, user_id=x) for i, x in enumerate(ODD)])
    place.apply(rows)
    place.persist(rows)
    with serve() as (_, url), httpx.Client(base_url=url, timeout=20) as client:
        for odd in ODD:
            asked = quote(odd, safe="")
            paths = [f"/v1/events/{asked}", f"/v1/orders/{asked}", f"/v1/users/{asked}/timeline"]
            answers = [client.get(path) for path in paths]
            assert [(odd, a.status_code) for a in answers] == [(odd, 200)] * 3
            stored, order, timeline = (a.json() for a in answers)
            assert (stored["event_id"], stored["state"], stored["event"]["event_id"]) == (odd, "stored", odd)
            assert (order["order_id"], order["user_id"]) == (odd, odd)
            assert [e["event_id"] for e in timeline["events"]] == [odd]
            assert all(v.isprintable() for a in answers for v in a.headers.values())


def escaped(text):
    units = memoryview(text.encode("utf-16-le")).cast("H")
    return '"' + "".join(f"\\u{unit:04x}" for unit in units) + '"'


@pytest.mark.parametrize(
    "written",
    [json.dumps, lambda text: json.dumps(text, ensure_ascii=False).replace("/", "\\/"), escaped],
    ids=["python", "php", "escaped"],
)
def test_an_event_of_any_id_is_found_on_the_log_however_it_is_written(place, written):
    for odd in ODD:
        place.send(topics.EVENTS, f'{{"event_id":{written(odd)}}}'.encode())

    async def work(client, _):
        return [(odd, (await client.get(f"/v1/events/{quote(odd, safe='')}")).json()) for odd in ODD]

    assert [(odd, body.get("state")) for odd, body in place.ask(work)] == [(odd, "waiting") for odd in ODD]


def test_what_no_event_has_as_an_id_is_refused(serve):
    with serve() as (_, url):
        for bad in ("", "x" * 65):
            answer = httpx.get(f"{url}/v1/events/{bad}")
            assert (answer.status_code, answer.json()["code"]) == (400, "bad_parameter")
        for not_utf8 in ("%FF", "%ED%A0%80"):
            assert httpx.get(f"{url}/v1/events/{not_utf8}").status_code in {400, 404}


def test_an_order_and_its_history(filled):
    body = filled.get("/v1/orders/o1").json()
    assert (body["state"], body["user_id"]) == ("refunded", "u1")
    assert {name: step["amount"] for name, step in body["history"].items()} == {
        "ordered": 103,
        "paid": 104,
        "refunded": 106,
    }


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v1/users/x/timeline", "unknown_user"),
        ("/v1/orders/x", "unknown_order"),
        ("/v1/events/x", "unknown_event"),
    ],
)
def test_what_is_unknown_is_404(filled, path, code):
    answer = filled.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, code)


def diverted(topic, event_id, **more):
    origin = Origin("tide.events", "id", 0, 3, 5)
    envelope = Envelope(
        origin=origin, attempt=2, not_before=99, stage="mysql.0", code="lock", error="e", **more
    )
    return topic, f'{{"event_id":"{event_id}"}}'.encode(), b"u", envelope.headers()


def test_where_an_event_is(filled):
    filled.send(topics.EVENTS, b'{"event_id":"on its way"}')
    filled.send(*diverted("retry.10s", "again"))
    filled.send(*diverted("retry.1m", "e1"))
    filled.send(topics.DEAD, b"\xff broken")
    filled.send(*diverted(topics.DEAD, "gone"))

    async def work(client, _):
        return {
            name: (await client.get(f"/v1/events/{name}")).json()
            for name in ("e1", "e2", "on its way", "again", "gone")
        }

    got = filled.ask(work)
    assert {name: body["state"] for name, body in got.items()} == {
        "e1": "stored",
        "e2": "stored",
        "on its way": "waiting",
        "again": "retrying",
        "gone": "dead",
    }
    assert got["e2"]["event"]["type"] == "click"
    assert got["e1"]["retrying"]["tier"] == "1m"
    assert got["again"]["retrying"] == {
        "tier": "10s", "stage": "mysql.0", "attempt": 2, "due": 99, "code": "lock", "error": "e",
    }  # fmt: skip
    assert got["gone"]["dead"]["code"] == "lock"


def test_an_event_that_was_accepted_a_moment_ago_is_not_unknown(filled):
    async def work(client, _):
        before = await client.get("/v1/events/just-now")
        accepted = await client.post("/v1/events", json=event(1, event_id="just-now"))
        return before.status_code, accepted.status_code, (await client.get("/v1/events/just-now")).json()

    before, accepted, after = filled.ask(work)
    assert (before, accepted) == (404, 202)
    assert after["state"] == "waiting"


def test_status(filled):
    filled.send(topics.EVENTS, b'{"event_id":"a"}')
    filled.send(*diverted("retry.10s", "again"))
    filled.send(*diverted(topics.DEAD, "gone"))
    body = filled.get("/v1/status").json()
    assert body["state"] == "up"
    assert body["lag"]["records"] == 1
    assert body["lag"]["seconds"] >= 0
    assert len(body["lag"]["partitions"]) == 2
    assert body["retry"]["10s"] == {"records": 1, "oldest_due": 99}
    assert body["retry"]["1s"] == {"records": 0, "oldest_due": None}
    assert body["dead"] == 1
    assert body["stores"] == {"redis": "up", "log": "up", "mysql.0": "up", "mysql.1": "up"}
    assert body["rate"] > 0


def test_the_same_question_at_the_same_time_is_read_once(filled):
    async def work(client, services):
        reads = []
        ask = services.stores.redis

        async def counted(read):
            # What health reads once a second calls no script.
            if any(command[0] == "EVALSHA" for command in read.commands):
                reads.append(read)
            return await ask(read)

        services.stores.redis = counted
        await services._health.look()
        reads.clear()
        answers = await asyncio.gather(*(client.get("/v1/metrics/genders") for _ in range(20)))
        return reads, [a.json() for a in answers]

    reads, answers = filled.ask(work, http__share_ms=60_000)
    assert len(reads) == 1
    assert len({a["as_of"] for a in answers}) == 1
    assert answers[0]["totals"]["female"] == 2
