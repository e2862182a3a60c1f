"""Metrics that may be kept, funnels, and as of when an answer is."""

from __future__ import annotations

import time

import pytest

from clicktide import topics

pytestmark = pytest.mark.embedded
DAY = 86_400_000


def now_ms():
    return time.time_ns() // 1_000_000


def event(i, kind, at, **more):
    base = {"event_id": f"e{i}", "type": kind, "user_id": f"u{i}", "occurred_at": at}
    if kind in {"order", "pay", "refund"}:
        base |= {"order_id": f"o{i}", "amount": 100 + i}
    return {**base, **more}


@pytest.fixture
def filled(place):
    at = now_ms() - 2000
    kinds = ["view"] * 8 + ["click"] * 4 + ["cart"] * 2 + ["order", "pay"]
    place.apply(place.rows([event(i, kind, at) for i, kind in enumerate(kinds)]))
    return place


def test_a_funnel(filled):
    body = filled.get("/v1/metrics/funnel").json()
    assert body["totals"] == {"view": 8, "click": 4, "cart": 2, "order": 1, "pay": 1}
    assert [(s["step"], s["events"], s["of_previous"]) for s in body["steps"]] == [
        ("view", 8, 1.0), ("click", 4, 0.5), ("cart", 2, 0.5), ("order", 1, 0.5), ("pay", 1, 1.0),
    ]  # fmt: skip
    assert body["steps"][4]["of_first"] == 0.125
    assert sum(p["view"] for p in body["series"]) == 8


@pytest.mark.parametrize("params", [{"window": "soon"}, {"limit": "3"}, {"slide": "2m"}])
def test_bad_parameters_of_a_funnel(place, params):
    answer = place.get("/v1/metrics/funnel", **params)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_parameter")


def test_what_has_not_changed_is_304_and_what_has_is_not(filled):
    params = {"from": now_ms() // DAY * DAY - DAY, "to": now_ms() // DAY * DAY + DAY}

    async def work(client, services):
        await services._health.look()
        first = await client.get("/v1/metrics/events", params=params)
        tag = {"If-None-Match": first.headers["etag"]}
        same = await client.get("/v1/metrics/events", params=params, headers=tag)
        filled.apply(filled.rows([event(99, "view", now_ms() - 1000)]))
        while (
            changed := await client.get("/v1/metrics/events", params=params, headers=tag)
        ).status_code != 200:
            assert now_ms() < first.json()["as_of"] + 30_000
        return first, same, changed

    first, same, changed = filled.ask(work)
    assert first.headers["cache-control"] == "private, no-cache"
    assert (same.status_code, same.content) == (304, b"")
    assert same.headers["etag"] == first.headers["etag"]
    assert changed.json()["totals"]["view"] == 9


def test_a_range_that_nothing_can_be_added_to_may_be_kept(place):
    end = now_ms() // DAY * DAY - 9 * DAY
    closed = place.get("/v1/metrics/gmv", settled=True, **{"from": end - DAY, "to": end})
    still = place.get("/v1/metrics/gmv", settled=True, **{"from": end - DAY, "to": end + 3 * DAY})
    assert closed.headers["cache-control"] == "private, max-age=3600"
    assert still.headers["cache-control"] == "private, no-cache"


@pytest.mark.parametrize("name", ["events", "genders", "gmv", "categories", "provinces", "uv", "funnel"])
def test_every_metric_has_a_tag(filled, name):
    assert filled.get(f"/v1/metrics/{name}").headers["etag"].startswith('W/"')


def test_only_the_newest_buckets_are_read_again_within_a_second(filled, monkeypatch):
    now = now_ms()
    monkeypatch.setattr("services.application.now_ms", lambda: now)  # within a second, however long it takes

    async def work(client, services):
        asked = []
        ask = services.stores.redis

        async def noted(read):
            asked.append([c for c in read.commands if c[0] == "EVALSHA"])
            return await ask(read)

        await services._health.look()
        services.stores.redis = noted
        bodies = [
            (await client.get(f"/v1/metrics/{name}")).json() for name in ("events", "genders", "funnel")
        ]
        return asked, bodies

    asked, bodies = filled.ask(work)
    spans = [commands[0][6] for commands in asked if commands]
    assert spans[0] == 60
    assert all(size <= 6 for size in spans[1:])
    assert [sum(p["view"] for p in b["series"]) for b in (bodies[0], bodies[2])] == [8, 8]
    assert sum(p["unknown"] for p in bodies[1]["series"]) == 16


def test_as_of_is_when_the_first_event_that_waits_was_uploaded(filled):
    """An answer must not look complete up to now while the log holds what is not in it."""

    async def work(client, services):
        await services._health.look()
        nothing_waits = (await client.get("/v1/metrics/events")).json()["as_of"]
        filled.send(topics.EVENTS, b"{}", key=b"u1")
        sent_by = now_ms()
        await services._health.look(fresh=True)
        paths = ("/v1/metrics/uv", "/v1/users/u1/timeline", "/v1/users/u5/timeline")
        return nothing_waits, sent_by, [(await client.get(p)).json()["as_of"] for p in paths]

    started = now_ms()
    nothing_waits, sent_by, (total, mine, other) = filled.ask(work)
    assert started <= nothing_waits <= mine <= sent_by
    # u1's event waits; those of users in the other partition are all there.
    assert total == mine
    assert other >= sent_by


def test_with_the_log_away_nothing_is_known_of_completeness(filled):
    async def work(client, services):
        await services._health.look()
        return (await client.get("/v1/metrics/events")).json()

    body = filled.ask(work, log__path=str(filled.folder))
    assert body["as_of"] is None
    assert body["totals"]["view"] == 8
    assert body["degraded"] == ["log"]
