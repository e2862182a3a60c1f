"""The past of a user: tallies add up, and what is remembered is dropped when it no longer holds."""

from __future__ import annotations

import gc

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from clicktide.member import counted_of
from clicktide.read import past as pasts
from clicktide.read.past import Held, Limits, Seen, Stored
from clicktide.read.tally import Tally
from clicktide.row import COLUMNS

LIMITS = Limits(length=60, ttl_ms=1_000_000_000, future_ms=300_000)
NOW = 5_000_000_000
SINCE = NOW - LIMITS.ttl_ms + LIMITS.future_ms + 3_600_000


def row(event_id, at, kind="view", **more):
    values = dict.fromkeys(COLUMNS)
    values.update(event_id=event_id, type=kind, user_id="u", occurred_at=at, gender="unknown", quantity=1)
    if kind in {"pay", "refund", "order"}:
        values["amount"] = 7
    values.update(more)
    return counted_of(list(values.values()))


events = st.lists(
    st.builds(
        row,
        st.uuids().map(str),
        st.integers(0, 50),
        st.sampled_from(["view", "pay", "refund", "order"]),
        category_id=st.sampled_from([None, "a", "b"]),
        brand_id=st.sampled_from([None, "x"]),
        province=st.sampled_from([None, "p", "q"]),
        gender=st.sampled_from(["unknown", "male", "female"]),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(events, st.integers(0, 30), st.randoms(use_true_random=False))
def test_a_tally_does_not_depend_on_order_or_parts(rows, cut, rng):
    whole = Tally().add(rows).as_json()
    shuffled = rows[:]
    rng.shuffle(shuffled)
    first = Tally().add(shuffled[:cut])
    assert first.copy().add(shuffled[cut:]).as_json() == whole
    # Newer rows need not be added, also once the leading names are known.
    assert first.as_json(shuffled[cut:]) == whole
    assert first.as_json(shuffled[cut:]) == whole
    # Both left the first one alone.
    assert first.as_json() == Tally().add(shuffled[:cut]).as_json()


def test_the_top_ten_are_those_with_most_events_and_then_by_name():
    tally = Tally()
    for i in range(30):
        tally.group("view", f"c{i:02}", None, 1 + i % 3, 0)
    top = tally.as_json()["categories"]
    assert [c["category_id"] for c in top] == [f"c{i:02}" for i in range(2, 30, 3)]
    assert {c["events"] for c in top} == {3}


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 40), max_size=150),
    st.lists(st.integers(0, 40), max_size=25),
    st.lists(st.integers(0, 40), max_size=9),
)
def test_newer_rows_change_who_leads(old, newer, newest):
    """More names than the ten shown, so that one from far down can come up, and up again after it was added."""
    rows = [
        [row(f"{i}", i, category_id=f"c{n:02}", brand_id=f"b{n % 13}") for i, n in enumerate(part)]
        for part in (old, newer, newest)
    ]
    tally = Tally().add(rows[0])
    assert tally.as_json(rows[1]) == Tally().add(rows[0] + rows[1]).as_json()
    tally.add(rows[1])
    assert tally.as_json(rows[2]) == Tally().add(rows[2] + rows[1] + rows[0]).as_json()


def newest_first(rows):
    return sorted(rows, key=lambda r: r.occurred_at, reverse=True)


def held(rows, cut):
    return Held(
        len(rows),
        sum(r.occurred_at < cut for r in rows),
        newest_first(r for r in rows if r.occurred_at >= cut),
    )


def learned(rows, older=None, inside=None, *, erased=False):
    rows = newest_first(rows)
    since = pasts.asked_since(Seen.of(rows), LIMITS, NOW)
    have = sum(r.occurred_at >= since for r in rows)
    return pasts.learned(
        rows, Stored(older or Tally(), have if inside is None else inside, erased), since, LIMITS, 0.0
    )


def test_of_few_events_nothing_is_summed_up_and_redis_is_whole():
    rows = [row(str(i), NOW - i) for i in range(5)]
    past = learned(rows)
    assert (past.whole, past.cut, past.tally.events) == (True, SINCE, 0)
    assert pasts.still_holds(past, held(rows, past.cut), LIMITS, 1.0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3000), min_size=0, max_size=55, unique=True), st.integers(0, 40))
def test_tally_and_newer_rows_are_always_all_events(ages, more):
    """However the cut moves: what it sums up and what Redis has from there on is everything, once."""
    rows = [row(f"{a:05}", NOW - a, "pay") for a in ages]
    past = learned(rows)
    for i in range(more):
        rows.append(row(f"n{i:05}", NOW + 1 + i, "pay"))
        found = held(rows, past.cut)
        if len(rows) < LIMITS.length:
            assert pasts.still_holds(past, found, LIMITS, 1.0)
        past = pasts.advanced(past, found)
        again = held(rows, past.cut)
        assert past.tally.copy().add(again.events).as_json() == Tally().add(rows).as_json()
        assert len(again.events) <= 33


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3000), max_size=55, unique=True), st.integers(0, 60))
def test_what_was_learned_unread_is_the_same_once_it_is_read(ages, inside):
    rows = newest_first([row(f"{a:05}", NOW - a, "pay") for a in ages])
    stored = Stored(Tally(), inside, erased=True)
    unread = pasts.learned_unread(Seen.of(rows), stored, SINCE, 0.0)
    if inside > len(rows):
        assert unread is None
        return
    assert unread.whole
    assert pasts.still_holds(unread, held(rows, unread.cut), LIMITS, 1.0)
    assert pasts.advanced(unread, held(rows, unread.cut)) == learned(rows, inside=inside, erased=True)


def test_an_event_below_the_cut_or_one_that_is_missing_ends_it():
    rows = [row(f"{i:03}", NOW - i) for i in range(50)]
    past = learned(rows)
    assert past.cut > SINCE
    assert pasts.still_holds(past, held(rows, past.cut), LIMITS, 1.0)
    late = [*rows, row("late", past.cut - 1)]
    assert not pasts.still_holds(past, held(late, past.cut), LIMITS, 1.0)
    lost = rows[:-1]
    assert not pasts.still_holds(past, held(lost, past.cut), LIMITS, 1.0)
    assert not pasts.still_holds(past, held(rows, past.cut), LIMITS, 601.0)


def test_a_full_timeline_holds_while_it_reaches_below_the_cut_and_not_for_long():
    rows = [row(f"{i:03}", NOW - i) for i in range(60)]
    past = learned(rows)
    assert (past.trimmed, past.whole) == (True, False)
    assert past.since == NOW - 59 + 1
    assert pasts.still_holds(past, held(rows, past.cut), LIMITS, 1.0)
    assert pasts.still_holds(past, held(rows, past.cut), LIMITS, 10_000.0)
    assert not pasts.outrun(held(rows, past.cut), LIMITS)


def test_a_full_timeline_is_counted_now_and_then_and_of_late_events_made_anew():
    rows = [row(f"{i:03}", NOW - i) for i in range(60)]
    past = learned(rows, Tally().add([row("old", NOW - 1000)]))
    found = held(rows, past.cut)
    assert not pasts.due(past, found, LIMITS, 30.0)
    assert pasts.due(past, found, LIMITS, 31.0)
    have = past.tally.events
    again = pasts.confirmed(past, have, 31.0)
    assert again == replace(past, made=31.0)
    assert pasts.confirmed(past, have - 1, 31.0), "SQL is behind"
    assert pasts.confirmed(past, have + 1, 31.0) is None
    assert pasts.confirmed(replace(past, left_out=1), have + 1, 31.0)
    assert not pasts.due(learned(rows[:5]), held(rows[:5], SINCE), LIMITS, 10_000.0)
    long = replace(past, tally=Tally().add([row(str(i), NOW - 2000) for i in range(20_000)]))
    assert not pasts.due(long, found, LIMITS, 99.0), "a long history is counted less often"
    assert pasts.due(long, found, LIMITS, 101.0)


def test_a_past_that_was_outrun_catches_up_by_what_sql_has_between():
    rows = [row(f"{i:03}", NOW - i, "pay") for i in range(60)]
    past = learned(rows, Tally().add(rows[59:]))
    newer = [row(f"n{i:03}", NOW + 1 + i, "pay") for i in range(80)]
    in_redis = newest_first(rows + newer)[: LIMITS.length]
    assert pasts.outrun(held(in_redis, past.cut), LIMITS)
    since = pasts.asked_since(Seen.of(in_redis), LIMITS, NOW)
    gap = Tally().add(r for r in rows + newer if past.cut <= r.occurred_at < since)
    moved, found = pasts.caught_up(past, in_redis, gap, since)
    assert moved.tally.copy().add(found.events).as_json() == Tally().add(rows + newer).as_json()
    assert pasts.still_holds(moved, found, LIMITS, 1.0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=50), st.lists(st.integers(0, 40), max_size=50))
def test_two_tallies_add_up_to_that_of_all(one, other):
    parts = [
        [
            row(
                f"{k}{i}", n, ["view", "pay"][n % 2], category_id=f"c{n}", province=f"p{n}" if n % 3 else None
            )
            for i, n in enumerate(part)
        ]
        for k, part in enumerate((one, other))
    ]
    whole = Tally().add(parts[0] + parts[1]).as_json()
    assert Tally().add(parts[0]).plus(Tally().add(parts[1])).as_json() == whole


def test_where_sql_has_more_than_redis_nothing_is_remembered():
    rows = [row(str(i), NOW - i) for i in range(5)]
    assert learned(rows, inside=6) is None


def test_with_older_events_in_sql_redis_is_not_whole():
    older = Tally().add([row("old", SINCE - 1)])
    past = learned([row("new", NOW)], older)
    assert (past.older, past.whole) == (1, False)


def test_of_nobody_is_believed_for_a_minute_only():
    past = learned([])
    assert past.whole
    assert pasts.still_holds(past, Held(0, 0, []), LIMITS, 59.0)
    assert not pasts.still_holds(past, Held(0, 0, []), LIMITS, 61.0)


def test_what_is_remembered_of_users_is_nothing_to_the_garbage_collector():
    """Ten thousand users would be a pause of some 10 ms each time it looks through them."""
    rows = [row(str(i), NOW - i, category_id=f"c{i}", brand_id="b", province="p") for i in range(50)]
    past = pasts.learned(rows, Stored(Tally(), 50), SINCE, LIMITS, 1.0)
    assert past.tally.as_json()["events"]
    gc.collect()
    parts = [
        past,
        past.tally,
        past.tally.types,
        past.tally.brands,
        past.tally.best_categories,
        past.tally.province,
    ]
    assert not [part for part in parts if gc.is_tracked(part)]
