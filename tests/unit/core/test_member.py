"""Members of timelines: what goes in comes out, as rows, as text and as what sums need, and Redis' order is that of positions."""

from __future__ import annotations

import itertools

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clicktide import member
from clicktide.member import counted, counted_of, members, position, printed, rows_of
from clicktide.read.events import event_of
from clicktide.row import (
    COLUMNS,
    EVENT_ID,
    EXTRA,
    GENDERS,
    MONEY_TYPES,
    OCCURRED_AT,
    SHARD,
    TYPES,
    position_of,
)

PLAIN = {
    "event_id": "e1",
    "type": "view",
    "user_id": "u1",
    "occurred_at": 1000,
    "received_at": 1001,
    "shard": 3,
}
EXTRAS = [
    None,
    '{"device_id":"d"}',
    '{"device_id":"d","session_id":"s"}',
    '{"session_id":"s\\"","page":"/\\u0001"}',
    '{"attributes":{"device_id":"x","a":"1","session_id":"2","deep":[{"event_id":"no"}]}}',
]


def row(**fields):
    values = {
        **dict.fromkeys(COLUMNS),
        **PLAIN,
        "quantity": 1,
        "gender": "unknown",
        "fingerprint": "f",
        **fields,
    }
    return [values[name] for name in COLUMNS]


def kept(given):
    """What a member keeps of the row."""
    return [None if i == SHARD else value for i, value in enumerate(given[: EXTRA + 1])]


text = st.text(min_size=1, max_size=8)
ids = st.one_of(st.text('ab! "\\\x01\x0b\n\x7fé漢', min_size=1, max_size=4), text)
maybe = st.one_of(st.none(), st.just(""), ids)
rows = st.builds(
    row,
    event_id=ids,
    type=st.sampled_from(TYPES),
    user_id=ids,
    occurred_at=st.integers(0, 3),
    received_at=st.integers(0, 2**53),
    **dict.fromkeys(
        ["item_id", "category_id", "merchant_id", "brand_id", "order_id", "age_range", "province", "channel"],
        maybe,
    ),
    amount=st.one_of(st.none(), st.integers(0, 2**53)),
    quantity=st.integers(1, 3),
    gender=st.sampled_from(GENDERS),
    extra=st.sampled_from(EXTRAS),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(rows, max_size=6))
@example([row(extra="{}")])
@example([row(extra='漢"\\\x7f\n'), row(event_id="e2")])
@example([row(extra='{"a":"\x01"}')])
def test_what_goes_in_comes_out(given):
    found = members(given)
    assert len(found) == len(given)
    assert [kept(r) for r in rows_of(found)] == sorted(map(kept, given), key=position_of, reverse=True)
    assert counted(found) == [counted_of(r) for r in given] or any(m[:1] == b"[" for m in found)
    assert sorted(map(repr, counted(found))) == sorted(repr(counted_of(r)) for r in given)
    if all(m[:1] == b"\x01" for m in found):
        printed_ones = b"[" + member._whole(b",".join(found)) + b"]"
        assert orjson.loads(printed_ones) == [event_of(r) for r in given]


@settings(max_examples=200, deadline=None)
@given(st.lists(rows, max_size=8, unique_by=position_of))
def test_what_is_printed_is_in_the_order_of_positions(given):
    found = {m: r[OCCURRED_AT] for m, r in zip(members(given), given, strict=True)}
    as_redis_has_them = sorted(found, key=lambda m: (found[m], m), reverse=True)
    shown = printed(as_redis_has_them)
    newest_first = sorted(given, key=position_of, reverse=True)
    if shown is None:
        assert any(b"\\" in m for m in found)
        return
    assert orjson.loads(b"[" + shown + b"]") == [event_of(r) for r in newest_first]
    assert [position(m) for m in as_redis_has_them] == [position_of(r) for r in newest_first]


def test_an_id_that_begins_another_comes_before_it():
    given = [row(event_id=i) for i in ("a", "a!", "a a", "a0")]
    in_order = sorted(members(given))
    assert [position(m)[1] for m in in_order] == sorted(r[EVENT_ID] for r in given)
    assert printed(in_order) is not None


@pytest.mark.parametrize("field", ["event_id", "user_id", "item_id", "province"])
def test_escapes_are_not_printed_as_they_come(field):
    assert printed(members([row(**{field: 'a"b'})])) is None
    assert printed(members([row()])) is not None


def test_members_of_earlier_releases_are_read_beside_those_of_this_one():
    old, new = (
        row(event_id="old", occurred_at=5, extra=EXTRAS[1]),
        row(event_id="new", occurred_at=6, type="pay", amount=7),
    )
    assert printed([orjson.dumps(row()[: EXTRA + 1])]) is None
    found = [orjson.dumps(old[: EXTRA + 1]), *members([new])]
    assert printed(found) is None
    assert [r[EVENT_ID] for r in rows_of(found)] == ["new", "old"]
    assert rows_of(found)[1] == old[: EXTRA + 1]
    assert counted(found) == [counted_of(new), counted_of(old)]


def test_a_usual_event_is_small():
    usual = row(
        event_id="gjr2pbt3i2kb-4217",
        user_id="u8633",
        occurred_at=1795721577025,
        received_at=1795721577027,
        item_id="i3248",
        category_id="c38",
        merchant_id="m141",
        brand_id="b6",
        gender="female",
        age_range="4",
        province="重庆市",
        channel="app",
        extra='{"device_id":"d951630a1","session_id":"sgjr2pbt3i2kb-536"}',
    )
    (small,) = members([usual])
    assert len(small) == 125 < 0.4 * len(printed([small]) or b"")


def test_pieces_are_all_different_and_none_is_in_another():
    pieces = member._PIECES
    assert all(len(code) == 1 and code < " " for code in pieces)
    assert not set("".join(pieces.values())) & set(pieces)
    assert len(set(pieces.values())) == len(pieces)
    assert not {"\x00", "\t", "\n", "\r"} & set(pieces)


def test_every_kind_and_gender_has_its_own():
    for kind, gender in itertools.product(TYPES, GENDERS):
        given = row(type=kind, gender=gender, amount=1 if kind in MONEY_TYPES else None)
        shown = orjson.loads(printed(members([given])) or b"")
        assert (shown["type"], shown["gender"], shown["quantity"]) == (kind, gender, 1)


@settings(max_examples=300, deadline=None)
@given(st.lists(rows, min_size=1, max_size=8, unique_by=position_of), st.integers(1, 4))
def test_behind_a_page_that_is_printed_nothing_belongs_before_it(given, limit):
    found = {m: r[OCCURRED_AT] for m, r in zip(members(given), given, strict=True)}
    page = sorted(found, key=lambda m: (found[m], m), reverse=True)[:limit]
    if printed(page) is not None:
        newest = sorted(map(position_of, given), reverse=True)[:limit]
        assert [position(m) for m in page] == newest
