"""What a write is: events inserted by their id, then the orders joined, in one transaction of the caller.

An order is the join of the rows that are *stored*: a row that another one with the same id kept out, by its
fingerprint or by another time, does not reach its order either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from clicktide.errors import StoreRefused
from clicktide.orders import fold
from clicktide.row import EVENT_ID, FINGERPRINT, OCCURRED_AT, SHARD, Row
from clicktide.sql.statements import Statements, found_of


class Written(NamedTuple):
    """How many of the rows were new, and the positions of those that conflict.

    In conflict: (shard, event_id) is stored with another fingerprint. All other rows are stored now.
    """

    new: int
    conflicts: list[int]


class RowOutcome(NamedTuple):
    """What became of one row: `error` is there when it was refused."""

    state: Literal["stored", "conflict", "refused"]
    error: StoreRefused | None = None


class Result(NamedTuple):
    """What a write did; `kept`: the rows that are stored just as they were given, now or before."""

    written: Written
    kept: Sequence[Row]


def write_rows(statements: Statements, cursor: Any, rows: Sequence[Row]) -> Result:
    """Write `rows`; looks at what was there before only when fewer were inserted than given."""
    new = statements.insert_events(cursor, rows)
    conflicts: list[int] = []
    kept = ordering = rows
    if new < len(rows):
        stored = statements.stored(cursor, rows)
        same = [stored.get((row[SHARD], row[EVENT_ID])) for row in rows]
        pairs = list(zip(rows, same, strict=True))
        conflicts = [
            i for i, (row, s) in enumerate(pairs) if s is not None and s.fingerprint != row[FINGERPRINT]
        ]
        ordering = [row for row, s in pairs if s and s[:2] == (row[FINGERPRINT], row[OCCURRED_AT])]
        kept = [row for row, s in pairs if s == found_of(row)]
    orders = fold(ordering)
    if orders:
        statements.upsert_orders(cursor, orders)
    return Result(Written(new, conflicts), kept)
