"""Events as callers see them: a row (or a timeline's member) as the JSON object of the event's fields."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Any

import orjson

from clicktide.row import COLUMNS, EVENT_ID, EXTRA, OCCURRED_AT, Row

_NAMES = COLUMNS[: EXTRA + 1]
Event = dict[str, Any]
Position = tuple[int, str]


def event_of(row: Row) -> Event:
    """The event's fields by name, those without a value left out; times in ms, amounts in minor units."""
    event: Event = {name: value for name, value in zip(_NAMES, row, strict=False) if value is not None}
    del event["shard"]
    extra = event.pop("extra", None)
    if extra:
        event.update(orjson.loads(extra))
    return event


# Where a row stands in a timeline: (occurred_at ms, event_id); timelines run from high to low.
position_of: Callable[[Row], Position] = itemgetter(OCCURRED_AT, EVENT_ID)


def rows_of(members: Iterable[bytes]) -> list[Row]:
    """A timeline's members as rows, from the highest position to the lowest."""
    rows: list[Row] = orjson.loads(b"[" + b",".join(members) + b"]")
    rows.sort(key=position_of, reverse=True)
    return rows
