"""Packing: every shape comes back as it was, and nothing else passes for one."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.core.making import DIGEST, NOW, TOPIC_ID, raw, row

from clicktide.packing import pack, unpack
from clicktide.retry.envelope import Origin
from clicktide.slices import Failure, Failures, Place, Records, Retries, Rows

PLACE = Place("tide.events", TOPIC_ID, DIGEST, 3)

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.integers(-(2**63), 2**63 - 1)
places = st.builds(Place, words, words, words, numbers)
rows = st.lists(st.none() | words | numbers, max_size=22)
failures = st.builds(Failure, numbers, words, words, words, words, st.floats(0, 1e9))
origins = st.builds(Origin, words, words, numbers, numbers, numbers)


def columns(*kinds):
    """Lists of equal length, one of each kind."""
    return st.lists(st.tuples(*kinds), max_size=6).map(
        lambda its: [[i[k] for i in its] for k in range(len(kinds))]
    )


shapes = st.one_of(
    st.builds(lambda place, c: Records(place, *c), places, columns(numbers, numbers, st.binary())),
    st.builds(lambda place, c: Retries(place, *c), places, columns(numbers, st.binary(), words, origins)),
    st.builds(Rows, places, st.lists(rows, max_size=6)),
    st.builds(Failures, places, st.lists(failures, max_size=6)),
)


@given(shapes)
def test_what_is_packed_comes_back(value):
    text = pack(value)
    again = unpack(text, type(value))
    assert again == value
    assert type(again) is type(value)
    assert re.fullmatch("[A-Za-z0-9+/=]+", text), "nothing that JSON would have to escape but the slash"


def test_parts_come_back_as_what_they_are():
    """Equal is not enough: a named tuple equals a plain one."""
    again = unpack(pack(Failures(PLACE, [Failure(1, "parse", "fatal", "not_json", "no")])), Failures)
    assert (type(again.place), type(again.failures[0])) == (Place, Failure)


def test_a_slice_is_much_shorter_than_its_rows():
    rows = [row(f"e{i}", offset=i, user_id=f"u{i % 50}", item_id=f"i{i % 90}") for i in range(500)]
    assert len(pack(Rows(PLACE, rows))) < len(json.dumps(rows)) / 4


@pytest.mark.parametrize(
    "text", ["", "=", "nonsense", "漢", pack(Rows(PLACE, [row()]))[:-9], json.dumps([1])]
)
def test_what_is_no_packed_text_is_refused_by_name(text):
    with pytest.raises(ValueError, match="no packed Rows"):
        unpack(text, Rows)


def test_another_shape_is_refused():
    with pytest.raises(ValueError, match="no packed Rows"):
        unpack(pack(Records(PLACE, [1], [NOW], [raw()])), Rows)


def test_what_cannot_be_said_is_an_error():
    with pytest.raises(TypeError):
        pack(Rows(PLACE, [[object()]]))
