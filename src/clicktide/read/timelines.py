"""Timelines: a user's events, newest first, from Redis as far as it goes and from SQL beyond it; pages by cursor.

A page that Redis fills is answered by Redis alone. Events come by (occurred_at, event_id) downwards, so a cursor stays
good while new events arrive: none is skipped, none comes twice.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from itertools import islice
from typing import Any, NamedTuple

import orjson

from clicktide import keys
from clicktide.errors import ClicktideError
from clicktide.member import position, printed, rows_of
from clicktide.read.plan import Read
from clicktide.row import OCCURRED_AT, TYPE, Position, Row, position_of

# A page may begin in the middle of one millisecond's events.
_SPARE = 8


class BadCursor(ClicktideError):
    """The cursor is not one that a timeline gave."""

    code = "bad_cursor"


class Wanted(NamedTuple):
    """What a page is to hold. `since` <= occurred_at < `until` (ms); `before` is the cursor's position; an empty
    `types` is all types."""

    limit: int
    types: frozenset[str] = frozenset()
    since: int | None = None
    until: int | None = None
    before: Position | None = None

    @property
    def newest_only(self) -> bool:
        """Whether it is the first page, of whatever there is."""
        return not self.types and self.since is None and self.until is None and self.before is None


class Page(NamedTuple):
    """`next` is where the following page starts, None at the end."""

    rows: list[Row]
    next: Position | None


class Printed(NamedTuple):
    """A page whose events are JSON text already, with commas between."""

    text: bytes
    next: Position | None


class Newest(NamedTuple):
    """`rows`, newest first, out of the `card` that Redis holds. `cut_off`: too few to know that they are the page's."""

    card: int
    rows: list[Row]
    cut_off: bool


def newest(namespace: str, shard: int, user_id: str, wanted: Wanted | None) -> Read[Newest]:
    """What Redis holds of a user for a page, or all of it (at most `timeline.length` rows)."""
    key = keys.timeline(namespace, shard, user_id)
    # With types, whatever is skipped may be any number of rows.
    limited = wanted is not None and not wanted.types
    asked = wanted.limit + _SPARE if wanted is not None else 0
    command: tuple[str | int, ...] = ("ZRANGE", key, 0, -1, "REV")
    if wanted is not None and limited:
        ends = [] if wanted.before is None else [wanted.before[0]]
        if wanted.until is not None:
            ends.append(wanted.until - 1)
        high = min(ends) if ends else "+inf"
        low = "-inf" if wanted.since is None else wanted.since
        command = ("ZRANGE", key, high, low, "BYSCORE", "REV", "LIMIT", 0, asked)

    def fold(replies: list[Any]) -> Newest:
        rows = rows_of(replies[1])
        if not limited or len(rows) < asked or wanted is None:
            return Newest(int(replies[0]), rows, cut_off=False)
        # Redis orders those of one millisecond by their text: the last ones may not be all of theirs.
        oldest = rows[-1][OCCURRED_AT]
        rows = [row for row in rows if row[OCCURRED_AT] > oldest]
        return Newest(int(replies[0]), rows, cut_off=len(matching(rows, wanted)) < wanted.limit)

    return Read([("ZCARD", key), command], fold)


class First(NamedTuple):
    """The newest `members` out of the `card` that Redis holds, and their `text`; `last` is the position of the last one. `text` is None where
    they need not be in the order of their positions."""

    card: int
    members: list[bytes]
    text: bytes | None
    last: Position | None


def first(namespace: str, shard: int, user_id: str, limit: int) -> Read[First]:
    """What Redis holds of a user for a first page."""
    key = keys.timeline(namespace, shard, user_id)

    def fold(replies: list[Any]) -> First:
        members = replies[1]
        # Whatever Redis has in another order than that of positions it has too early: behind the last one nothing belongs before it.
        text = printed(members)
        return First(replies[0], members, text, position(members[-1]) if text else None)

    return Read([("ZCARD", key), ("ZRANGE", key, 0, limit - 1, "REV")], fold)


def matching(rows: Iterable[Row], wanted: Wanted) -> list[Row]:
    """Those of `rows` that the page may hold, at most `limit`, in the order they came."""
    if wanted.newest_only:
        return list(islice(rows, wanted.limit))
    out: list[Row] = []
    for row in rows:
        if len(out) >= wanted.limit:
            break
        if wanted.types and row[TYPE] not in wanted.types:
            continue
        if wanted.since is not None and row[OCCURRED_AT] < wanted.since:
            continue
        if wanted.until is not None and row[OCCURRED_AT] >= wanted.until:
            continue
        if wanted.before is not None and position_of(row) >= wanted.before:
            continue
        out.append(row)
    return out


def merged(first: Iterable[Row], second: Iterable[Row], limit: int) -> list[Row]:
    """Rows of both, newest first, each event once (the first wins), at most `limit`."""
    by_position = {position_of(row): row for row in (*second, *first)}
    return [by_position[p] for p in sorted(by_position, reverse=True)[:limit]]


def page(rows: list[Row], limit: int, *, more: bool) -> Page:
    """A page of `rows`. `more`: whether something may follow (a full page always may)."""
    full = len(rows) >= limit
    return Page(rows, position_of(rows[-1]) if rows and (full or more) else None)


def cursor_of(position: Position) -> str:
    """The position as opaque URL-safe text."""
    return urlsafe_b64encode(orjson.dumps(position)).rstrip(b"=").decode()


def position_from(cursor: str) -> Position:
    """Raises `BadCursor`."""
    try:
        at, event_id = orjson.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, TypeError) as e:
        raise BadCursor("cursor: expected one from `next` of an earlier answer") from e
    if not isinstance(at, int) or isinstance(at, bool) or not isinstance(event_id, str):
        raise BadCursor("cursor: expected one from `next` of an earlier answer")
    return (at, event_id)
