"""The past: what is known of a user's events before a moment, so that a read needs only what came since.

Redis holds the newest events of a user: all that were applied within `timeline.ttl_h`, but at most `timeline.length`. SQL has
all. A `Past` says up to where SQL was asked, what that came to, and how one sees that it holds no longer; with it one slot of
Redis answers alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from clicktide import keys
from clicktide.read.events import rows_of
from clicktide.read.plan import Command, Read
from clicktide.read.tally import Tally
from clicktide.row import OCCURRED_AT, Row
from clicktide.settings import Settings
from clicktide.sql.schema import events

KEEP = 8  # so many of the newest events stay outside a tally: late ones among them cost nothing
_FOLD = 32
_SLACK_MS = 3_600_000
_WHOLE_S, _TRIMMED_S, _EMPTY_S = 600.0, 30.0, 5.0
_KNOWN_ROWS = 200  # so many of the newest are looked at for province, gender and age range


class Limits(NamedTuple):
    """How much of a user Redis holds. `length` events, for `ttl_ms` after the last one; clocks may differ by `future_ms`."""

    length: int
    ttl_ms: int
    future_ms: int

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        return cls(
            settings.integer("timeline.length"),
            int(settings.number("timeline.ttl_h") * 3_600_000),
            int(settings.number("events.future_s") * 1000),
        )

    def held_from(self, now_ms: int) -> int:
        """Events that happened from then on (ms) cannot have left Redis by age."""
        return now_ms - self.ttl_ms + self.future_ms


class Held(NamedTuple):
    """What Redis answered: how many events it holds of the user, how many below `cut`, and rows from `cut` on (or some of
    the newest), newest first."""

    card: int
    below: int
    rows: list[Row]


class Past(NamedTuple):
    """`tally` is of all events before `cut` (ms); `older` of them, before `since`, are in SQL only.

    `below` and `card` are what Redis held when it was made, at `made` (monotonic s); `trimmed`: Redis held no more than it may;
    `erased`: the user was, then.
    """

    since: int
    older: int
    cut: int
    tally: Tally
    below: int
    card: int
    made: float
    trimmed: bool
    erased: bool = False

    @property
    def empty(self) -> bool:
        """Whether there is nothing of the user."""
        return self.card == 0 and self.older == 0

    @property
    def whole(self) -> bool:
        """Whether Redis holds all there is."""
        return self.older == 0 and not self.trimmed


class Stored(NamedTuple):
    """What SQL has: `tally` of the events before `since`, and `inside` events from then up to the newest that Redis has, or all
    where it has none; `erased`: the user's events are dropped."""

    tally: Tally
    inside: int
    erased: bool = False


def held(namespace: str, shard: int, user_id: str, cut: int | None) -> Read[Held]:
    """The user's rows from `cut` (ms) on, or all, and the counts that tell whether a `Past` still holds."""
    key = keys.timeline(namespace, shard, user_id)
    commands: list[Command] = [("ZCARD", key)]
    if cut is None:
        commands.append(("ZRANGE", key, 0, -1, "REV"))
    else:
        commands += [("ZCOUNT", key, "-inf", f"({cut}"), ("ZRANGE", key, "+inf", cut, "BYSCORE", "REV")]

    def fold(replies: list[Any]) -> Held:
        return Held(int(replies[0]), 0 if cut is None else int(replies[1]), rows_of(replies[-1]))

    return Read(commands, fold)


def fresh(past: Past, clock: float) -> bool:
    """Whether it is young enough to be trusted where nothing speaks against it. A user of whom there is nothing may be about to come."""
    good_for = _TRIMMED_S if past.trimmed else _EMPTY_S if past.empty else _WHOLE_S
    return clock - past.made <= good_for


def still_holds(past: Past, found: Held, limits: Limits, clock: float) -> bool:
    """Whether the tally and the rows found from its cut on are together all events of the user."""
    full = found.card >= limits.length
    if not fresh(past, clock) or (full and clock - past.made > _TRIMMED_S) or found.card < past.card:
        return False
    if not full:
        # One more below the cut came late and is not in the tally.
        return found.below == past.below
    # Redis drops the oldest first: while it has one below the cut, it has all above.
    return found.below >= 1


def asked_since(rows: Sequence[Row], limits: Limits, now_ms: int) -> int:
    """From when on (ms) Redis holds all of the user's events, `rows` being all it has, newest first."""
    since = limits.held_from(now_ms) + _SLACK_MS
    if len(rows) >= limits.length:
        # Of the events at the oldest one's very millisecond some may be gone.
        since = max(since, rows[-1][OCCURRED_AT] + 1)
    return since


def learned(rows: Sequence[Row], stored: Stored, since: int, limits: Limits, clock: float) -> Past | None:
    """The past by all rows of Redis and by what SQL has; None where Redis lacks what SQL has."""
    inside = [row for row in rows if row[OCCURRED_AT] >= since]
    if stored.inside > len(inside):
        return None
    below = len(rows) - len(inside)
    full = len(rows) >= limits.length
    tally = stored.tally
    past = Past(since, tally.events, since, tally, below, len(rows), clock, full, stored.erased)
    return advanced(past, Held(len(rows), below, inside))


def advanced(past: Past, found: Held) -> Past:
    """The past with all but the newest of the rows in its tally, once there are many of them."""
    if len(found.rows) <= _FOLD:
        if (found.card, found.below) == (past.card, past.below):
            return past
        return past._replace(card=found.card, below=found.below)
    cut = found.rows[KEEP][OCCURRED_AT] + 1
    folded = [row for row in found.rows if row[OCCURRED_AT] < cut]
    tally = past.tally.copy().add(folded)
    return past._replace(cut=cut, tally=tally, below=found.below + len(folded), card=found.card)


def tally_before(connection: Connection, shard: int, user_id: str, since: int | None) -> Tally:
    """What SQL's events of a user before `since` (ms) come to, of all of them where it is None."""
    given = {"shard": shard, "user_id": user_id, "since": _NEVER if since is None else since}
    tally = Tally()
    for kind, category, brand, count, total, first, last in connection.execute(_GROUPS, given):
        tally.group(kind, category, brand, int(count), int(total))
        tally.seen(int(first), int(last))
    if tally.events:
        for row in connection.execute(_NEWEST, given):
            tally.know(*row)
    return tally


# Made once: making them anew costs ten times what they cost in the server.
_NEVER = 2**62
_C = events.c
_BEFORE = (
    _C.shard == sa.bindparam("shard"),
    _C.user_id == sa.bindparam("user_id"),
    _C.occurred_at < sa.bindparam("since"),
)
_NAMES = (_C.type, _C.category_id, _C.brand_id)
_TIMES = (sa.func.min(_C.occurred_at), sa.func.max(_C.occurred_at))
_GROUPS = (
    sa.select(*_NAMES, sa.func.count(), sa.func.coalesce(sa.func.sum(_C.amount), 0), *_TIMES)
    .where(*_BEFORE)
    .group_by(*_NAMES)
)
_NEWEST = (
    sa.select(_C.occurred_at, _C.province, _C.gender, _C.age_range)
    .where(*_BEFORE)
    .order_by(_C.occurred_at.desc())
    .limit(_KNOWN_ROWS)
)
