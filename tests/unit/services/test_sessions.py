"""Sessions: how events are cut, and that pages have each session once."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clicktide.read.sessions import GAP_MS, Cutter, Place, cursor_of, place_from
from clicktide.read.timelines import BadCursor
from clicktide.row import COLUMNS, EXTRA, OCCURRED_AT, position_of


def row(event_id, at, session_id=None, kind="view", amount=None, item_id=None):
    values = dict.fromkeys(COLUMNS)
    values.update(event_id=event_id, type=kind, user_id="u", occurred_at=at, shard=1, quantity=1)
    values.update(amount=amount, item_id=item_id)
    if session_id is not None:
        values["extra"] = f'{{"session_id":"{session_id}"}}'
    return list(values.values())


def expected(rows):
    """By the words of the definition: one id's events, cut where they pause."""
    by_id = {}
    for r in sorted(rows, key=position_of, reverse=True):
        by_id.setdefault(r[EXTRA], []).append(r)
    sessions = []
    for same in by_id.values():
        current = [same[0]]
        for newer, older in pairwise(same):
            if newer[OCCURRED_AT] - older[OCCURRED_AT] > GAP_MS:
                sessions.append(current)
                current = []
            current.append(older)
        sessions.append(current)
    sessions.sort(key=lambda s: position_of(s[0]), reverse=True)
    return [(s[-1][OCCURRED_AT], s[0][OCCURRED_AT], len(s)) for s in sessions]


def cut(rows, limit, after=None, step=3):
    """One page, fed as the service does: only what lies before the cursor, in pieces."""
    cutter = Cutter(limit, after)
    left = [r for r in rows if after is None or position_of(r) < after.before]
    while left and not cutter.done:
        cutter.feed(left[:step])
        left = left[step:]
    if not left:
        cutter.end()
    return cutter


def shown(cutter):
    return [(s.start, s.end, sum(s.counts.values())) for s in cutter.sessions]


minutes = st.integers(0, 120).map(lambda n: n * 60_000 * 3)
many = st.lists(st.tuples(minutes, st.sampled_from([None, "a", "b"])), min_size=1, max_size=40).map(
    lambda pairs: sorted(
        (row(f"e{i:02}", at, session_id) for i, (at, session_id) in enumerate(pairs)),
        key=position_of,
        reverse=True,
    )
)


@settings(max_examples=150, deadline=None)
@given(many)
def test_sessions_are_as_defined(rows):
    cutter = cut(rows, 1000)
    assert shown(cutter) == expected(rows)
    assert all(s.closed for s in cutter.sessions)
    assert cutter.place() is None


@settings(max_examples=150, deadline=None)
@given(many, st.integers(1, 4))
def test_pages_by_cursor_have_every_session_once_and_whole(rows, limit):
    seen, after = [], None
    for _ in range(100):
        cutter = cut(rows, limit, after)
        assert len(cutter.sessions) <= limit
        seen += shown(cutter)
        place = cutter.place()
        if place is None:
            break
        after = place_from(cursor_of(place))
    assert seen == expected(rows)


@settings(max_examples=80, deadline=None)
@given(many, st.integers(1, 12))
def test_when_reading_stops_early_no_event_is_shown_twice(rows, most):
    """The service reads a bounded number of events a page; a session then goes without its beginning, but ends once."""
    seen, after = 0, None
    for _ in range(100):
        left = [r for r in rows if after is None or position_of(r) < after.before]
        cutter = Cutter(2, after)
        cutter.feed(left[:most])
        if len(left) <= most:
            cutter.end()
        seen += sum(n for _, _, n in shown(cutter))
        after = cutter.place()
        if after is None:
            break
    assert after is None
    assert seen <= len(rows)


def test_what_a_session_says():
    rows = [row("c", 9000, "s", "pay", 5, "i"), row("b", 8000, "s", "view", None, "i"), row("a", 7000, "s")]
    cutter = cut(rows, 5)
    assert cutter.sessions[0].as_json() == {
        "session_id": "s", "from": 7000, "to": 9000, "events": 3, "counts": {"pay": 1, "view": 2},
        "items": 1, "spend": 5, "complete": True,
    }  # fmt: skip


def test_reading_stops_once_the_page_cannot_change():
    rows = [row("z", 10 * GAP_MS), row("y", 5 * GAP_MS), row("x", 0)]
    cutter = Cutter(1)
    cutter.feed(rows[:2])
    assert cutter.done
    assert cutter.place() == Place((10 * GAP_MS, "z"), {-1: 10 * GAP_MS})


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 2**53),
    st.text(min_size=1, max_size=64),
    st.dictionaries(st.integers(-1, 2**32), st.integers(0, 2**53), max_size=64),
)
def test_a_cursor_gives_its_place_back_and_stays_under_4_kib(at, event_id, carried):
    place = Place((at, event_id), carried)
    cursor = cursor_of(place)
    assert place_from(cursor) == place
    assert len(cursor) <= 4096


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "!!!!", "WzFd", "WzEsImEiLDFd", "WzEsImEiLFtbMV1dXQ", "W3RydWUsImEiLFtdXQ", "bnVsbA", "é"],
)
def test_other_texts_are_no_cursors(cursor):
    with pytest.raises(BadCursor):
        place_from(cursor)
