"""The past: what is known of a user's events before a moment, so that a read needs only what came since.

Redis holds the newest events of a user: all that were applied within `timeline.ttl_h`, but at most `timeline.length`. SQL has
all. A `Past` says up to where SQL was asked, what that came to, and how one sees that it holds no longer; with it one slot of
Redis answers alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from clicktide import keys
from clicktide.member import Counted, counted
from clicktide.read.plan import Command, Read
from clicktide.read.tally import Tally
from clicktide.settings import Settings

KEEP = 8  # so many of the newest events stay outside a tally: late ones among them cost nothing
_FOLD = 32
_SLACK_MS = 3_600_000
_WHOLE_S, _EMPTY_S = 600.0, 60.0
# Of a user with more events than Redis keeps SQL counts those below the cut so often, and of a long history not more than so many in a second.
_COUNTED_S, _COUNTED_A_SECOND = 30.0, 200


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
    """What Redis answered: how many events it holds of the user, how many below `cut`, and the events from `cut` on (or some of
    the newest), newest first."""

    card: int
    below: int
    events: list[Counted]


class Seen(NamedTuple):
    """All events that Redis holds of a user: how many, and the times (ms) of the newest and the oldest, 0 where there are none."""

    card: int
    newest: int
    oldest: int

    @classmethod
    def of(cls, events: Sequence[Counted]) -> Seen:
        """`events` newest first."""
        if not events:
            return cls(0, 0, 0)
        return cls(len(events), events[0].occurred_at, events[-1].occurred_at)


class Past(msgspec.Struct, frozen=True, gc=False):
    """`tally` is of all events before `cut` (ms); `older` of them, before `since`, are in SQL only.

    `below` and `card` are what Redis held when it was made, at `made` (monotonic s); `trimmed`: Redis held no more than it may;
    `erased`: the user was, then; `left_out`: so many of the oldest events are not in the tally, there are too many.
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
    left_out: int = 0

    @property
    def empty(self) -> bool:
        """Whether there is nothing of the user."""
        return self.card == 0 and self.older == 0

    @property
    def whole(self) -> bool:
        """Whether Redis holds all there is."""
        return self.older == 0 and not self.trimmed


class Stored(NamedTuple):
    """What SQL has: `tally` of the events before `since` but for the oldest `left_out`, and `inside` events from then up to the newest that
    Redis has, or all where it has none; `erased`: the user's events are dropped."""

    tally: Tally
    inside: int
    erased: bool = False
    left_out: int = 0


def held(namespace: str, shard: int, user_id: str, cut: int | None) -> Read[Held]:
    """The user's events from `cut` (ms) on, or all, and the counts that tell whether a `Past` still holds."""
    key = keys.timeline(namespace, shard, user_id)
    commands: list[Command] = [("ZCARD", key)]
    if cut is None:
        commands.append(("ZRANGE", key, 0, -1, "REV"))
    else:
        commands += [("ZCOUNT", key, "-inf", f"({cut}"), ("ZRANGE", key, "+inf", cut, "BYSCORE", "REV")]

    def fold(replies: list[Any]) -> Held:
        return Held(int(replies[0]), 0 if cut is None else int(replies[1]), counted(replies[-1]))

    return Read(commands, fold)


def fresh(past: Past, clock: float) -> bool:
    """Whether it is young enough to be trusted where nothing speaks against it. A user of whom there was nothing may have come by SQL alone,
    where Redis lacks his events for a while."""
    return past.trimmed or clock - past.made <= (_EMPTY_S if past.empty else _WHOLE_S)


def due(past: Past, found: Held, limits: Limits, clock: float) -> bool:
    """Whether SQL is to count the events below the cut: late ones leave no trace in a timeline that is full."""
    if not past.trimmed and found.card < limits.length:
        return False
    return clock - past.made > max(_COUNTED_S, past.tally.events / _COUNTED_A_SECOND)


def confirmed(past: Past, below: int, clock: float) -> Past | None:
    """The past as of now, SQL having `below` events below the cut; None where late ones are among them.

    SQL may have fewer, being behind Redis: those that are missing there are summed up already.
    """
    return replace(past, made=clock) if below <= past.tally.events + past.left_out else None


def still_holds(past: Past, found: Held, limits: Limits, clock: float) -> bool:
    """Whether the tally and the events found from its cut on are together all events of the user."""
    full = found.card >= limits.length
    if not fresh(past, clock) or found.card < past.card:
        return False
    if not full:
        # One more below the cut came late and is not in the tally.
        return found.below == past.below
    # Redis drops the oldest first: while it has one below the cut, it has all above.
    return found.below >= 1


def outrun(found: Held, limits: Limits) -> bool:
    """Whether so much has come that Redis has dropped events above the cut already: SQL has to say what those came to."""
    return found.card >= limits.length and found.below == 0


def caught_up(past: Past, events: Sequence[Counted], gap: Tally, since: int) -> tuple[Past, Held]:
    """The past that was outrun and what is above it: `gap` is what SQL's events from its cut up to `since` come to, `events` all
    that Redis has."""
    inside = [event for event in events if event.occurred_at >= since]
    found = Held(len(events), len(events) - len(inside), inside)
    tally = past.tally.plus(gap)
    return replace(past, cut=since, tally=tally, below=found.below, card=found.card, trimmed=True), found


def asked_since(seen: Seen, limits: Limits, now_ms: int) -> int:
    """From when on (ms) Redis holds all of the user's events."""
    since = limits.held_from(now_ms) + _SLACK_MS
    if seen.card >= limits.length:
        # Of the events at the oldest one's very millisecond some may be gone.
        since = max(since, seen.oldest + 1)
    return since


def learned(
    events: Sequence[Counted], stored: Stored, since: int, limits: Limits, clock: float
) -> Past | None:
    """The past by all events of Redis and by what SQL has; None where Redis lacks what SQL has."""
    inside = [event for event in events if event.occurred_at >= since]
    if stored.inside > len(inside):
        return None
    below = len(events) - len(inside)
    full = len(events) >= limits.length
    tally = stored.tally
    older = tally.events + stored.left_out
    past = Past(since, older, since, tally, below, len(events), clock, full, stored.erased, stored.left_out)
    return advanced(past, Held(len(events), below, inside))


def learned_unread(seen: Seen, stored: Stored, since: int, clock: float) -> Past | None:
    """As `learned`, before anybody has read the events: none of them is in the tally. They must all be from `since` on, and fewer than Redis
    keeps."""
    if stored.inside > seen.card:
        return None
    tally, older = stored.tally, stored.tally.events + stored.left_out
    return Past(since, older, since, tally, 0, seen.card, clock, False, stored.erased, stored.left_out)


def advanced(past: Past, found: Held) -> Past:
    """The past with all but the newest of the events in its tally, once there are many of them."""
    if len(found.events) <= _FOLD:
        if (found.card, found.below) == (past.card, past.below):
            return past
        return replace(past, card=found.card, below=found.below)
    cut = found.events[KEEP].occurred_at + 1
    folded = [event for event in found.events if event.occurred_at < cut]
    tally = past.tally.copy().add(folded)
    return replace(past, cut=cut, tally=tally, below=found.below + len(folded), card=found.card)
