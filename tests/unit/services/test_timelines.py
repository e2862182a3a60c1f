"""Timelines: pages, cursors, and what Redis and SQL say together."""

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clicktide.read.events import encode, event_of, shown
from clicktide.read.timelines import BadCursor, Wanted, cursor_of, matching, merged, page, position_from
from clicktide.row import AMOUNT, COLUMNS, EXTRA, GENDER, ITEM_ID, PROVINCE, position_of


def row(event_id, at, kind="view"):
    values = dict.fromkeys(COLUMNS)
    values.update(
        event_id=event_id, type=kind, user_id="u", occurred_at=at, received_at=at, shard=1, quantity=1
    )
    return list(values.values())


def test_an_event_has_its_fields_by_name_and_what_was_extra():
    r = row("e", 5)
    r[EXTRA] = '{"page":"/x","attributes":{"a":1}}'
    event = event_of(r)
    assert event["event_id"] == "e"
    assert event["page"] == "/x"
    assert event["attributes"] == {"a": 1}
    assert "shard" not in event
    assert "item_id" not in event


_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_extras = st.dictionaries(
    st.sampled_from(["device_id", "page", "attributes", "session_id"]),
    _texts | st.dictionaries(_texts, st.none() | st.integers(-5, 5) | _texts, max_size=3),
)


@settings(max_examples=150, deadline=None)
@given(
    st.none() | _texts,
    st.none() | _texts,
    st.none() | st.integers(0, 2**62),
    st.sampled_from(["female", "male", "unknown", 'other"', "", None]),
    st.none() | _extras.map(lambda e: orjson.dumps(e).decode()) | st.sampled_from(["", "{}"]),
    st.sampled_from([EXTRA, EXTRA + 1, len(COLUMNS)]),
)
def test_events_are_written_as_their_fields(item, province, amount, gender, extra, columns):
    """Whatever stands in a row, and also in one that the pipeline would not have written."""
    r = row('e"\\é', 5)
    r[ITEM_ID], r[PROVINCE], r[AMOUNT], r[GENDER], r[EXTRA] = item, province, amount, gender, extra
    if extra in ("", "{}"):
        assert event_of(r).keys().isdisjoint({"extra", "device_id"})
    r = r[:columns]
    written = orjson.loads(encode({"events": shown([r, row("f", 6)])}))
    expected = [event_of(x) if len(x) > EXTRA else _short(x) for x in (r, row("f", 6))]
    assert written == {"events": expected}


def _short(r):
    return event_of([*r, None])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**53), st.text(min_size=1, max_size=64))
def test_a_cursor_gives_its_position_back(at, event_id):
    assert position_from(cursor_of((at, event_id))) == (at, event_id)


@pytest.mark.parametrize("cursor", ["", "x", "!!!!", "WzFd", "WzEsMl0", "W3RydWUsImEiXQ", "bnVsbA", "é"])
def test_other_texts_are_no_cursors(cursor):
    with pytest.raises(BadCursor):
        position_from(cursor)


rows = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 6)), unique=True).map(
    lambda pairs: sorted((row(i + str(at), at) for i, at in pairs), key=position_of, reverse=True)
)


@settings(max_examples=40, deadline=None)
@given(rows, st.integers(1, 4))
def test_pages_by_cursor_give_every_event_once_in_order(all_rows, limit):
    seen, before = [], None
    while True:
        got = page(matching(all_rows, Wanted(limit, before=before)), limit, more=False)
        seen += got.rows
        if got.next is None:
            break
        before = position_from(cursor_of(got.next))
    assert seen == all_rows


@settings(max_examples=40, deadline=None)
@given(rows, rows, st.integers(1, 20))
def test_merged_has_each_event_once_newest_first(first, second, limit):
    got = [position_of(r) for r in merged(first, second, limit)]
    wanted = sorted({position_of(r) for r in first + second}, reverse=True)[:limit]
    assert got == wanted


def test_matching_keeps_to_types_and_times():
    found = [row("a", 3, "pay"), row("b", 2), row("c", 1, "pay")]
    assert matching(found, Wanted(9, types=frozenset({"pay"}))) == [found[0], found[2]]
    assert matching(found, Wanted(9, since=2, until=3)) == [found[1]]
