"""Memory: what was learned of users, and what follows from it; nothing here asks a store.

A user's past (`clicktide.read.past`) makes Redis' answer enough. The `_REMEMBERED` users asked for last are kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from clicktide.member import Counted
from clicktide.read import past as pasts
from clicktide.read.accounts import Ask
from clicktide.read.past import Held, Limits, Past, Seen, Stored
from clicktide.read.tally import Tally
from clicktide.read.timelines import Wanted

_REMEMBERED = 50_000


class Told(NamedTuple):
    """What all of a user's events come to: a tally (not to be changed) and events that are not in it; `exact`: none that came late, no
    store is missing."""

    tally: Tally
    newer: list[Counted]
    exact: bool


class Memory:
    """`now_ms` is the wall clock (ms), `clock` monotonic seconds. Users are named as the stores do."""

    def __init__(self, limits: Limits, now_ms: Callable[[], int], clock: Callable[[], float]) -> None:
        self._limits, self._now_ms, self._clock = limits, now_ms, clock
        self._pasts: OrderedDict[str, Past] = OrderedDict()

    def past(self, user_id: str) -> Past | None:
        return self._pasts.get(user_id)

    def erased(self, user_id: str) -> bool | None:
        """Whether the user of whom nothing was found was erased, as SQL said some seconds ago at most; None where it has to be asked."""
        past = self._pasts.get(user_id)
        return past.erased if past is not None and past.empty and pasts.fresh(past, self._clock()) else None

    def sure(
        self, user_id: str, wanted: Wanted, card: int, matching: int, oldest: int
    ) -> tuple[bool, bool] | None:
        """Whether the matching events, so many of those that Redis holds, down to the oldest one's time (ms), are all there are from first
        to last, and whether they make the page. None where SQL has to be asked of the user."""
        held_from = self._limits.held_from(self._now_ms())
        if matching == wanted.limit and oldest >= held_from:
            return False, True
        if card >= self._limits.length:
            return False, False
        if wanted.since is not None and wanted.since >= held_from:
            return True, True
        past = self._pasts.get(user_id)
        if past is None or card < past.card or not pasts.fresh(past, self._clock()):
            return None
        return past.whole, past.whole

    def holds(self, past: Past, found: Held) -> bool:
        """Whether the past and what Redis has above it are all of the user's events, and nobody has to be asked about it."""
        clock = self._clock()
        return pasts.still_holds(past, found, self._limits, clock) and not pasts.due(
            past, found, self._limits, clock
        )

    def question(self, shard: int, user_id: str, seen: Seen) -> Ask:
        """What SQL has to be asked of a user of whom Redis holds just what was seen."""
        since = pasts.asked_since(seen, self._limits, self._now_ms())
        return Ask(shard, user_id, since, seen.newest if seen.card else None)

    def may_stay_unread(self, seen: Seen, ask: Ask) -> bool:
        """Whether `learn_unread` will do."""
        return seen.card < self._limits.length and (not seen.card or seen.oldest >= ask.since)

    def learn_unread(self, ask: Ask, seen: Seen, stored: Stored) -> Past | None:
        """As `learn`, of events that nobody has read yet: a timeline needs no sums."""
        past = pasts.learned_unread(seen, stored, ask.since, self._clock())
        return self._learned(ask.user_id, past)

    def learn(self, ask: Ask, events: list[Counted], stored: Stored) -> Past | None:
        """The user's past by the question and what SQL said to it; None where Redis lacks what SQL has."""
        past = pasts.learned(events, stored, ask.since, self._limits, self._clock())
        return self._learned(ask.user_id, past)

    def _learned(self, user_id: str, past: Past | None) -> Past | None:
        if past is not None:
            self._remember(user_id, past)
        else:
            self._pasts.pop(user_id, None)
        return past

    def told(self, user_id: str, past: Past, found: Held) -> Told:
        """The answer by a past that holds."""
        self._remember(user_id, pasts.advanced(past, found))
        return Told(past.tally, found.events, found.card < self._limits.length and not past.left_out)

    def _remember(self, user_id: str, past: Past) -> None:
        self._pasts[user_id] = past
        self._pasts.move_to_end(user_id)
        if len(self._pasts) > _REMEMBERED:
            self._pasts.popitem(last=False)


def told_anew(past: Past, events: list[Counted]) -> Told:
    """The answer by a past that was just learned by these events."""
    newer = [event for event in events if event.occurred_at >= past.cut]
    return Told(past.tally, newer, not past.trimmed and not past.left_out)
