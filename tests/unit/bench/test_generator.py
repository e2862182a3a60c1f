"""The generator: deterministic, on schedule, and each kind is what it says."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import orjson
import pytest

from bench import generator, malformed
from bench.generator import Mix
from clicktide.parse import Parser, Rejection
from clicktide.settings import Settings

START = 1_700_000_000_000
FULL = Mix(duplicates=0.05, malformed=0.05, late=0.05, orders=0.1)


def made(n, seed=1, mix=FULL, **more):
    return list(islice(generator.events(seed, start_ms=START, mix=mix, users=500, items=200, **more), n))


def events_of(records, *kinds):
    return [orjson.loads(r.value) for r in records if r.kind in kinds]


def test_the_same_seed_gives_the_same_bytes():
    assert made(3000) == made(3000)
    assert made(300, seed=1) != made(300, seed=2)


def test_another_run_differs_in_ids_alone():
    first, second = made(500, run="ga"), made(500, run="gb")
    assert [r.value.replace(b"ga-", b"gb-") for r in first] == [r.value for r in second]


def test_intended_times_follow_the_rate():
    records = made(1000, rate=250.0)
    assert [r.at for r in records] == [START + n * 4 for n in range(1000)]
    fresh = [r for r in records if r.kind == "good"]
    assert all(orjson.loads(r.value)["occurred_at"] == r.at for r in fresh)


def test_shares_are_about_what_was_asked_for():
    kinds = Counter(r.kind for r in made(10_000))
    for kind in ("duplicate", "malformed", "late"):
        assert 400 < kinds[kind] < 600
    types = Counter(e["type"] for e in events_of(made(10_000, mix=Mix(orders=0.1)), "good"))
    assert 800 < types["order"] < 1100
    assert 0.85 < types["pay"] / types["order"] < 0.98
    assert 0 < types["refund"] < types["pay"] * 0.1
    assert Counter(e["type"] for e in events_of(made(2000, mix=Mix(orders=0)), "good"))["order"] == 0


def test_ids_are_unique_but_for_duplicates():
    records = made(5000)
    ids = [e["event_id"] for e in events_of(records, "good", "late")]
    assert len(ids) == len(set(ids))
    assert {e["event_id"] for e in events_of(records, "duplicate")} <= set(ids)


def test_a_duplicate_differs_in_its_millisecond_alone():
    records = made(8000)
    sent = {e["event_id"]: e for e in events_of(records, "good", "late")}
    others = 0
    for again in events_of(records, "duplicate"):
        first = sent[again["event_id"]]
        assert again["occurred_at"] // 1000 == first["occurred_at"] // 1000
        others += again["occurred_at"] != first["occurred_at"]
        assert {**again, "occurred_at": 0} == {**first, "occurred_at": 0}
    assert others > 50


def test_late_is_late_at_the_intended_time():
    for record in made(5000, late_after_h=10):
        if record.kind == "late":
            assert record.at - orjson.loads(record.value)["occurred_at"] > 10 * 3_600_000


def test_orders_pays_and_refunds_belong_together():
    orders = {}
    for event in events_of(made(20_000, mix=Mix(orders=0.2)), "good"):
        if event["type"] == "order":
            orders[event["order_id"]] = [event]
        elif event["type"] in ("pay", "refund"):
            orders[event["order_id"]].append(event)
    steps = Counter(tuple(e["type"] for e in its) for its in orders.values())
    assert set(steps) == {("order",), ("order", "pay"), ("order", "pay", "refund")}
    for its in orders.values():
        assert len({(e["user_id"], e["item_id"], e["amount"]) for e in its}) == 1
        assert its[0]["amount"] > 0


def test_users_and_items_keep_what_they_are_and_follow_zipf():
    events = events_of(made(10_000), "good")
    for key, kept in (
        ("user_id", ("gender", "province", "device_id")),
        ("item_id", ("category_id", "brand_id")),
    ):
        seen = {}
        for event in events:
            assert seen.setdefault(event[key], [event[k] for k in kept]) == [event[k] for k in kept]
    top = Counter(e["item_id"] for e in events).most_common()
    assert top[0][1] > 10 * top[len(top) // 2][1]


def test_good_ones_are_good_and_malformed_ones_are_not():
    parser = Parser(Settings({}))
    for record in made(3000):
        answer = parser.check(record.value, record.at)
        assert isinstance(answer, Rejection) == (record.kind == "malformed"), record


@pytest.mark.parametrize("kind", malformed.KINDS, ids=lambda k: k.__name__)
def test_each_way_to_be_malformed_is_refused_by_the_rules(kind):
    raw = kind(b"gx-17", b"u1", START)
    assert b"gx-17" in raw
    assert b"\n" not in raw
    assert isinstance(Parser(Settings({})).check(raw, START), Rejection)


@pytest.mark.parametrize(
    ("mix", "problem"),
    [
        (Mix(duplicates=-0.1), "duplicates: expected a share"),
        (Mix(late=1.5), "late: expected a share"),
        (Mix(0.5, 0.4, 0.2), "at most 1 together"),
        (Mix(orders=0.6), "orders: expected at most 0.5"),
        (FULL, None),
    ],
)
def test_shares_are_checked(mix, problem):
    assert (problem is None and mix.problem() is None) or problem in mix.problem()
