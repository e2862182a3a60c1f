"""Events as callers see them: a row (or a timeline's member) as the JSON object of the event's fields."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from clicktide.row import COLUMNS, EVENT_ID, EXTRA, OCCURRED_AT, SHARD, Row

_SHOWN = tuple((i, name) for i, name in enumerate(COLUMNS[:EXTRA]) if i != SHARD)
Event = dict[str, Any]
Position = tuple[int, str]


def event_of(row: Row) -> Event:
    """The event's fields by name, those without a value left out; times in ms, amounts in minor units."""
    event: Event = {name: row[i] for i, name in _SHOWN if row[i] is not None}
    if row[EXTRA]:
        event.update(orjson.loads(row[EXTRA]))
    return event


def position_of(row: Row) -> Position:
    """Where the row stands in a timeline: (occurred_at ms, event_id); timelines run from high to low."""
    return (row[OCCURRED_AT], row[EVENT_ID])


def rows_of(members: Iterable[bytes]) -> list[Row]:
    """A timeline's members as rows, from the highest position to the lowest."""
    rows: list[Row] = orjson.loads(b"[" + b",".join(members) + b"]")
    rows.sort(key=position_of, reverse=True)
    return rows
