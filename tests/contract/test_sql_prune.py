"""Retention, in both dialects: what is old goes, what is young stays, and a stop on the way loses nothing."""

from __future__ import annotations

import pytest
from sql_dialects import DIALECTS, fresh_dsns, open_store, row

from clicktide.errors import SettingError
from clicktide.settings import Settings
from clicktide.sql import prune as pruning
from clicktide.sql.prune import Pruned, cutoff_ms, prune

DAY = 86_400_000
NOW = 1_700_000_000_000
BEFORE = NOW - 90 * DAY


@pytest.fixture(params=DIALECTS)
def store(request, tmp_path, monkeypatch):
    monkeypatch.setattr(pruning, "PAGE", 7)  # several pages a shard
    store = open_store(fresh_dsns(request.param, tmp_path, 2))
    store.prepare()
    yield store
    store.close()


def silent(*_):
    pass


def write(store, rows):
    for shard in {r[5] for r in rows}:
        store.write(store.dsn_of(shard), [r for r in rows if r[5] == shard])


def ids(store, table, key):
    return sorted(
        one
        for dsn in store.dsns
        for (one,) in dsn.read(lambda c: c.exec_driver_sql(f"SELECT {key} FROM {table}").all())
    )


def events(store):
    return ids(store, "events", "event_id")


def test_old_events_go_and_young_ones_stay(store):
    old = [row(f"old{i:02}", shard=i % 8, occurred_at=BEFORE - 1 - i) for i in range(60)]
    young = [row(f"new{i:02}", shard=i % 8, occurred_at=BEFORE + i) for i in range(60)]
    write(store, old + young)
    looks = []
    counted = prune(store, range(8), BEFORE, lambda *told: looks.append(told), delete=False)
    assert counted == Pruned(60, 0)
    assert len(events(store)) == 120
    assert {shard for shard, *_ in looks} == set(range(8))
    assert prune(store, [3], BEFORE, silent) == Pruned(sum(r[5] == 3 for r in old), 0)
    assert prune(store, range(8), BEFORE, silent) == Pruned(sum(r[5] != 3 for r in old), 0)
    assert events(store) == sorted(r[0] for r in young)
    assert prune(store, range(8), BEFORE, silent) == Pruned(0, 0)


def test_an_order_goes_when_all_of_it_is_old(store):
    at = {"ordered": BEFORE - 5, "paid": BEFORE - 3}
    write(
        store,
        [
            row("o1", type="order", order_id="done", amount=1, occurred_at=at["ordered"]),
            row("p1", type="pay", order_id="done", amount=1, occurred_at=at["paid"]),
            row("o2", type="order", order_id="paid late", amount=1, occurred_at=at["ordered"]),
            row("p2", type="pay", order_id="paid late", amount=1, occurred_at=BEFORE),
        ],
    )
    assert prune(store, range(8), BEFORE, silent) == Pruned(3, 1)
    assert ids(store, "orders", "order_id") == ["paid late"]
    assert events(store) == ["p2"]


def test_it_may_be_stopped_anywhere_and_goes_on(store):
    write(store, [row(f"e{i:03}", occurred_at=BEFORE - 1) for i in range(40)])

    def stop(_shard, _table, seen, _old):
        if seen > 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prune(store, range(8), BEFORE, stop)
    assert 0 < len(events(store)) < 40
    prune(store, range(8), BEFORE, silent)
    assert events(store) == []


def test_what_may_come_again_is_too_young_to_go():
    settings = Settings({"topics.retention_h": 100, "claims.window_h": 96})
    assert cutoff_ms(settings, 8 * DAY, NOW) == NOW - 8 * DAY
    with pytest.raises(SettingError, match="at least 8 days"):
        cutoff_ms(settings, 8 * DAY - 1, NOW)
