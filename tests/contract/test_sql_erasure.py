"""Erased users in SQL, in both dialects: whatever comes later of them is dropped, wherever their shard is."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sql_dialects import DIALECTS, fresh_dsns, open_store, row

from clicktide.sql.move import Mover

SHARD = 2
NOW = 1_760_000_000_000


@pytest.fixture(params=DIALECTS)
def dsns(request, tmp_path):
    return fresh_dsns(request.param, tmp_path, 2)


@pytest.fixture
def store(dsns):
    store = open_store(dsns)
    yield store
    store.close()


def erase(store, user):
    store.entomb(SHARD, user, NOW)
    return store.erase_user(SHARD, user)


MINE = [row(f"m{i}", user_id="gone", type="pay", order_id=f"o{i % 2}", amount=i) for i in range(4)]
OTHERS = [row(f"x{i}", user_id=f"u{i}") for i in range(3)]


def test_what_comes_later_is_dropped_and_counted(store):
    store.write(0, [*MINE[:2], *OTHERS])
    assert erase(store, "gone") == {"events": 2, "orders": 2}
    assert store.write(0, [*MINE, row("x9")]) == (1, [])
    assert store.erased == 4
    assert store.order("o0") is None
    assert store.counts().events == 4
    assert erase(store, "gone") == {"events": 0, "orders": 0}
    assert store.is_erased(SHARD, "gone")
    assert not store.is_erased(SHARD, "u1")
    assert store.erased_users(SHARD) == ["gone"]
    assert store.erased_users(SHARD + 1) == []


def test_a_writer_that_knows_nothing_of_it_drops_it_too(store, dsns):
    """Another process: it has read the placement before, and is never told."""
    other = open_store(dsns)
    other.write(0, OTHERS)
    erase(store, "gone")
    assert other.write(0, MINE) == (0, [])
    assert other.erased == len(MINE)
    other.close()


def test_positions_of_conflicts_are_those_of_the_rows_given(store):
    store.write(0, OTHERS)
    erase(store, "gone")
    clash = row("x1", user_id="u1", fingerprint="other---")
    assert store.write(0, [MINE[0], OTHERS[0], MINE[1], clash]) == (0, [3])
    assert [o.state for o in store.write_each(0, [MINE[0], clash])] == ["stored", "conflict"]


def test_lifted_it_is_a_user_again(store, dsns):
    erase(store, "gone")
    store.entomb(SHARD, "gone", NOW, lifted=True)
    assert not store.is_erased(SHARD, "gone")
    for one in (store, open_store(dsns)):
        one.write(0, MINE)
    assert store.counts().events == len(MINE)
    erase(store, "gone")
    assert store.write(0, MINE) == (0, [])


def test_ids_are_told_apart_to_the_byte(store):
    erase(store, "gone")
    near = [row("a", user_id="GONE"), row("b", user_id="gone "), row("c", user_id="göne")]
    assert store.write(0, near) == (3, [])


def mover(store):
    return Mover(store, lambda: NOW, lambda _s: None, lambda *_: None)


def test_it_moves_with_the_shard_and_back(store, dsns):
    store.write(0, OTHERS)
    erase(store, "gone")
    mover(store).move(SHARD, 1)
    for one in (store, open_store(dsns)):
        assert one.write(0, MINE) == (0, [])
        assert one.is_erased(SHARD, "gone")
    store.entomb(SHARD, "gone", NOW, lifted=True)
    mover(store).move(SHARD, 0)
    assert store.write(0, MINE) == (len(MINE), [])
    assert erase(store, "gone")["events"] == len(MINE)


STEPS = st.lists(st.sampled_from(["write", "erase", "move 0", "move 1", "fresh"]), max_size=8)


@pytest.mark.parametrize("dsns", DIALECTS[:1], indirect=True)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS, STEPS)
def test_after_an_erasure_at_any_point_nothing_is_left(dsns, before, after):
    store = open_store(dsns)
    store.entomb(SHARD, "gone", NOW, lifted=True)  # what the last example left
    for step in [*before, "erase", *after, "write"]:
        if step == "write":
            store.write(0, [*MINE, *OTHERS])
        elif step == "erase":
            erase(store, "gone")
        elif step == "fresh":
            store.close()
            store = open_store(dsns)
        else:
            mover(store).move(SHARD, int(step[-1]))
    assert store.events_of_user(SHARD, "gone") == []
    assert store.order("o0") is None
    assert len(store.events_of_user(SHARD, "u1")) == 1
    store.close()
