"""Rows are locked in one order by all writers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from sql_dialects import row

from clicktide.row import EVENT_ID, SHARD
from clicktide.sql.statements import in_key_order

keys = st.tuples(st.integers(0, 3), st.text(max_size=2))


@given(st.lists(keys, max_size=20))
def test_rows_go_by_shard_then_by_id(found):
    rows = [row(event_id, shard=shard) for shard, event_id in found]
    assert [(r[SHARD], r[EVENT_ID]) for r in in_key_order(rows)] == sorted(found)
