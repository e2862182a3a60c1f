"""Moving a shard: nothing is lost, doubled or brought back, whatever is written meanwhile and wherever it stops."""

from __future__ import annotations

import threading

import pytest
from sql_dialects import DIALECTS, fresh_dsns, open_store, row

from clicktide.orders import fold
from clicktide.sql import move as module
from clicktide.sql.move import MoveError, Mover

# Dozens of files are made and moved here: not for the fastest tests.
pytestmark = pytest.mark.embedded

SHARD = 2
NOW = 1_700_000_000_000


@pytest.fixture(params=DIALECTS)
def dsns(request, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PAGE", 10)
    return fresh_dsns(request.param, tmp_path, 3)


def rows_of(n, name="e", shard=SHARD):
    return [
        row(
            f"{name}{i:03}",
            shard=shard,
            type="pay",
            order_id=f"{name}o{i % 30}",
            amount=i,
            user_id=f"u{i % 3}",
        )
        for i in range(n)
    ]


class Halt(Exception):
    """The mover dies."""


def mover(store, at=lambda _step, _done: None):
    return Mover(store, lambda: NOW, lambda seconds: at("wait", int(seconds)), at)


def ids(store, dsn):
    return [e for (e,) in store.scan_events(dsn, ["event_id"])]


def left(store, dsn):
    """Rows that are in the DSN's tables, held or not."""
    with store.dsns[dsn].connection() as c:
        return [c.exec_driver_sql(f"SELECT COUNT(*) FROM {t}").scalar_one() for t in ("events", "orders")]


def test_a_moved_shard_is_whole_at_its_new_place_and_gone_from_the_old(dsns):
    store = open_store(dsns)
    rows, others = rows_of(35), rows_of(5, "x", shard=5)
    store.write(2, rows + others)
    before = store.counts()
    mover(store).move(SHARD, 0)
    assert store.dsn_of(SHARD) == 0
    assert (ids(store, 0), len(ids(store, 2))) == ([r[0] for r in rows], 5)
    assert list(store.scan_orders(0)) == fold(rows)
    assert left(store, 2) == [5, 5]
    assert store.counts() == before
    assert store.write(0, rows) == (0, [])
    assert store.event("e007") == rows[7]
    mover(store).move(SHARD, 0)  # again: nothing to do


def test_there_and_on_and_back_again(dsns):
    store = open_store(dsns)
    rows = rows_of(25)
    store.write(2, rows)
    for to in (0, 1, 0, 2):
        mover(store).move(SHARD, to)
        assert [len(ids(store, d)) for d in range(3)] == [25 if d == to else 0 for d in range(3)]
        assert open_store(dsns).write(2, rows) == (0, [])  # one that knows nothing follows
    assert store.order("eo1") == fold(r for r in rows if r[10] == "eo1")[0]


def test_other_processes_follow_in_their_next_write_and_read(dsns):
    store, time = open_store(dsns), [0.0]
    other = open_store(dsns, clock=lambda: time[0])
    other.write(2, rows_of(5))
    assert other.event("e001") is not None
    mover(store).move(SHARD, 1)
    assert other.write(2, [row("new", shard=SHARD)]) == (1, [])
    assert (ids(store, 1)[-1], left(store, 2)) == ("new", [0, 0])
    third = open_store(dsns, clock=lambda: time[0])
    assert third.events_of_user(SHARD, "u1")[0][0] == "new"
    mover(store).move(SHARD, 0)
    time[0] += 5  # a reader may be so long behind
    assert len(third.events_of_user(SHARD, "u1")) == 3
    assert third.event("new") is not None


def test_what_is_written_while_it_moves_is_at_the_new_place(dsns, monkeypatch):
    """Writers of their own, with duplicates, conflicts and replays, from before the move to after it."""
    monkeypatch.setattr(module, "PAGE", 25)
    store = open_store(dsns)
    first = rows_of(40)
    store.write(2, first)
    go, stop, errors, written = threading.Semaphore(0), threading.Event(), [], []

    def write(name):
        mine = open_store(dsns)
        try:
            n = 0
            while not stop.is_set() or n < 3:
                go.acquire(timeout=0.1)  # one slice a step of the mover, or it would be a race of speed
                slice_ = [*rows_of(6, f"{name}{n:04}-"), row("e001", shard=SHARD, fingerprint="other---")]
                slice_ += [
                    row(
                        "e002", shard=SHARD, type="pay", order_id="eo2", amount=2, user_id="u2", occurred_at=5
                    )
                ]
                for _ in range(2):
                    assert mine.write(2, slice_).conflicts == [6]
                written.extend(slice_[:6])
                n += 1
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=write, args=(name,)) for name in "xy"]
    for t in threads:
        t.start()
    for to in (0, 2, 1):
        mover(open_store(dsns), lambda _step, _done: go.release()).move(SHARD, to)
    stop.set()
    for t in threads:
        t.join()
    assert errors == []
    end = open_store(dsns)
    assert sorted(ids(end, 1)) == sorted(r[0] for r in first + written)
    assert [left(end, 0), left(end, 2)] == [[0, 0], [0, 0]]
    assert list(end.scan_orders(1)) == fold(first + written)
    assert end.event("e001") == first[1]
    assert end.event("e002") == first[2]


def test_a_conflict_that_comes_before_the_copy_does_not_win(dsns):
    store = open_store(dsns)
    rows = rows_of(25)
    store.write(2, rows)
    done = []

    def meddle(step, _done):
        if step == "events copied" and not done:
            done.append(1)  # the first page is copied, e020 is not
            late = row("e020", shard=SHARD, fingerprint="other---")
            assert open_store(dsns).write(
                2, [late, row("e021", shard=SHARD, offset=1, occurred_at=7)]
            ).conflicts == [0]

    mover(store, meddle).move(SHARD, 0)
    assert store.event("e020") == rows[20]
    assert store.event("e021") == rows[21]


@pytest.mark.parametrize(
    "step", ["events copied", "orders copied", "orders checked", "wait", "orders deleted"]
)
def test_an_erased_user_stays_erased(dsns, step):
    store = open_store(dsns)
    store.write(2, rows_of(45))
    done = []

    def meddle(at, _done):
        if at == step and not done:
            done.append(open_store(dsns).erase_user(SHARD, "u1"))

    mover(store, meddle).move(SHARD, 0)
    assert done[0]["events"] == 15
    assert store.events_of_user(SHARD, "u1") == []
    assert {o.user_id for o in store.scan_orders(0)} == {"u0", "u2"}
    assert left(store, 2) == [0, 0]


STEPS = ["say incoming", "say moving", "events copied", "orders checked", "say active", "say moved", "wait"]
STEPS += ["orders deleted", "events deleted"]


@pytest.mark.parametrize("home", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_a_move_that_died_is_finished_by_the_same_call(dsns, step, home, monkeypatch):
    store = open_store(dsns)
    rows = rows_of(25)
    store.write(2, rows)
    to = 0
    if home:
        mover(store).move(SHARD, 0)
        to = 2

    def die(at, _done):
        if at == step:
            raise Halt

    first = mover(store, die)
    say = first._say

    def say_and_die(dsn, shard, entry):
        say(dsn, shard, entry)
        die(f"say {entry.state}", 0)

    monkeypatch.setattr(first, "_say", say_and_die)
    with pytest.raises(Halt):
        first.move(SHARD, to)
    between = open_store(dsns)
    more = rows_of(5, "f")
    assert between.write(2, rows + more) == (5, [])
    assert sorted(between.scan_events(between.dsn_of(SHARD), ["event_id"])) == [(r[0],) for r in rows + more]
    again = open_store(dsns)
    mover(again).move(SHARD, to)
    assert [len(ids(again, d)) for d in range(3)] == [30 if d == to else 0 for d in range(3)]
    assert left(again, to) == [30, 30]
    assert [left(again, d) for d in range(3) if d != to] == [[0, 0]] * 2


def test_maps_of_different_age_that_point_in_a_circle_are_followed_to_the_end(dsns):
    store = open_store(dsns)
    store.write(2, rows_of(5))
    mover(store).move(SHARD, 1)
    mover(store).move(SHARD, 2)
    time = [0.0]
    stale = open_store(dsns, clock=lambda: time[0])
    stale.prepare()  # 1 says: moved to 2
    mover(store).move(SHARD, 1)
    assert stale.write(2, [row("new", shard=SHARD)]) == (1, [])  # 2 says: moved to 1
    stale = open_store(dsns, clock=lambda: time[0])
    stale.prepare()
    mover(store).move(SHARD, 2)
    stale.dsns[2].read(lambda c: stale.placements.look(stale.dsns[2], c))
    mover(store).move(SHARD, 1)
    assert stale.event("new") is not None
    time[0] = 5
    assert len(stale.events_of_user(SHARD, "u1")) == 3
    assert stale.erase_user(SHARD, "u1")["events"] == 3


def test_a_cancelled_move_leaves_the_shard_where_it_was(dsns):
    store = open_store(dsns)
    rows = rows_of(25)
    store.write(2, rows)

    def die(at, _done):
        if at == "orders copied":
            raise Halt

    with pytest.raises(Halt):
        mover(store, die).move(SHARD, 0)
    with pytest.raises(MoveError, match="on its way to DSN 0"):
        mover(store).move(SHARD, 1)
    straggler = open_store(dsns)
    straggler.prepare()
    mover(store).cancel(SHARD)
    assert [left(store, d) for d in range(3)] == [[0, 0], [0, 0], [25, 25]]
    assert straggler.write(2, [row("late", shard=SHARD)]) == (1, [])
    assert straggler._write(0, [row("late", shard=SHARD)], copy=True) == (0, [])
    assert left(store, 0) == [0, 0]
    mover(store).move(SHARD, 0)
    assert len(ids(store, 0)) == 26
    with pytest.raises(MoveError, match="not being moved"):
        mover(store).cancel(SHARD)


def test_a_shard_or_dsn_that_is_not(dsns):
    store = open_store(dsns)
    for shard, to in ((8, 0), (-1, 0), (0, 3), (0, -1)):
        with pytest.raises(MoveError, match="they are 0 to"):
            mover(store).move(shard, to)
