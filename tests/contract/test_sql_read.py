"""What the readers promise, in both dialects."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sql_dialects import DIALECTS, fresh_dsns, open_store, row

from clicktide.errors import StoreUnavailable
from clicktide.sql import Cursor


@pytest.fixture(params=DIALECTS)
def store(request, tmp_path):
    store = open_store(fresh_dsns(request.param, tmp_path, 2))
    yield store
    store.close()


def fill(store, rows):
    store.write(0, rows)
    return rows


def ids(rows):
    return [r[0] for r in rows]


def test_a_users_events_come_newest_first_in_pages_without_gap_or_repeat(store):
    # Three of a time, so that pages end within a tie.
    fill(
        store,
        [row(f"e{i:02}", occurred_at=1000 + i // 3, user_id="u") for i in range(20)]
        + [row("x", user_id="v")],
    )
    seen, cursor = [], None
    while True:
        page = store.events_of_user(2, "u", before_cursor=cursor, limit=7)
        seen += ids(page)
        if len(page) < 7:
            break
        cursor = Cursor(page[-1][3], page[-1][0])
    assert seen == [f"e{i:02}" for i in reversed(range(20))]


def test_a_users_events_by_type_and_time(store):
    fill(store, [row(f"e{i}", occurred_at=i, type=("view", "click", "cart")[i % 3]) for i in range(9)])
    assert ids(store.events_of_user(2, "u1", types=["click"])) == ["e7", "e4", "e1"]
    assert ids(store.events_of_user(2, "u1", types={"click", "cart"}, since=4, until=8)) == ["e7", "e5", "e4"]
    assert ids(store.events_of_user(2, "u1", since=8)) == ["e8"]
    assert store.events_of_user(2, "u1", types=[]) == []
    assert store.events_of_user(2, "nobody") == []
    assert store.events_of_user(3, "u1") == []


def test_an_event_and_an_order_are_found_wherever_they_are(store):
    rows = fill(store, [row(f"e{s}", shard=s, type="order", order_id=f"o{s}", amount=s) for s in range(8)])
    assert [store.event(f"e{s}") for s in range(8)] == rows
    assert [store.order(f"o{s}").ordered for s in range(8)] == [
        (1_700_000_000_000, f"e{s}", s) for s in range(8)
    ]
    assert store.event("none") is None
    assert store.order("none") is None


def test_an_order_that_two_shards_know_is_joined(store):
    fill(store, [row("e1", shard=1, type="order", order_id="o", amount=1, user_id="b")])
    fill(store, [row("e2", shard=2, type="refund", order_id="o", amount=2, user_id="a")])
    order = store.order("o")
    assert (order.state, order.user_id, order.ordered.amount, order.refunded.amount) == (
        "refunded",
        "a",
        1,
        2,
    )


def test_a_scan_gives_every_event_once_and_the_columns_asked_for(store):
    fill(store, [row(f"e{i:03}", shard=i % 8, amount=i) for i in range(100)])
    found = [*store.scan_events(0, page=7), *store.scan_events(1, page=7)]
    assert sorted(r[0] for r in found) == [f"e{i:03}" for i in range(100)]
    assert found[0] == ("e000", "view", "u1", 1_700_000_000_000, 1_700_000_000_500, "c1", 0, None)
    assert min(store.scan_events(1, ["log_offset", "amount"])) == (12345, 1)
    with pytest.raises(ValueError, match="offset"):
        next(store.scan_events(0, ["offset"]))


def test_orders_are_scanned_by_shard_and_id(store):
    fill(store, [row(f"e{i}", shard=i % 8, type="pay", order_id=f"o{i}", amount=i) for i in range(30)])
    found = [*store.scan_orders(0, page=3), *store.scan_orders(1, page=3)]
    assert sorted(o.order_id for o in found) == sorted(f"o{i}" for i in range(30))
    assert all(o.state == "paid" and o.paid.event == f"e{o.order_id[1:]}" for o in found)


def test_counts(store):
    assert store.counts() == (0, {}, 0)
    fill(
        store,
        [
            row(f"e{i}", shard=i % 8, type="pay" if i < 3 else "view", order_id="o", amount=1)
            for i in range(9)
        ],
    )
    assert store.counts() == (9, {"pay": 3, "view": 6}, 3)


def test_erasing_a_user_takes_their_events_and_orders_and_no_one_elses(store):
    fill(
        store,
        [row(f"e{i}", type="pay", order_id=f"o{i}", amount=1) for i in range(5)]
        + [row(f"f{i}", type="pay", order_id=f"p{i}", amount=1, user_id="u2") for i in range(2)]
        + [row("g", user_id="u1", shard=3)],
    )
    assert store.erase_user(2, "u1") == {"events": 5, "orders": 5}
    assert store.erase_user(2, "u1") == {"events": 0, "orders": 0}
    assert store.counts() == (3, {"pay": 2, "view": 1}, 2)


def test_before_anything_was_written_everything_is_empty(store):
    assert store.event("e") is None
    assert list(store.scan_events(1)) == []
    store.ping(0)
    store.ping(1)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_tables_that_are_missing_are_named(dialect, tmp_path):
    dsns = fresh_dsns(dialect, tmp_path, 1, to_break=True)
    store = open_store(dsns)
    with store.dsns[0].engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE events")
    with pytest.raises(StoreUnavailable, match="shards init"):
        store.event("e")
    with pytest.raises(StoreUnavailable, match="shards init"):
        store.write(0, [row("e")])


def test_readers_of_many_threads_each_have_a_connection_of_their_own(store):
    """One of a file is kept at hand between calls; whoever comes while it is in use gets another."""
    dsn = store.dsns[0]
    in_use, together = [], threading.Barrier(4)

    def read(connection):
        in_use.append(connection)
        together.wait(10)
        return connection.exec_driver_sql("SELECT 1").scalar()

    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            assert [f.result() for f in [pool.submit(dsn.read, read) for _ in range(4)]] == [1] * 4
            assert len(set(map(id, in_use))) == 4
            in_use.clear()
    with pytest.raises(ZeroDivisionError):
        dsn.read(lambda _: 1 / 0)
    assert dsn.read(lambda c: c.exec_driver_sql("SELECT 2").scalar()) == 2
