"""Soon: the usual questions about a user's history, answered as the stores' replies come, without a task each.

The same answers as those of `histories`, by the same `Memory`. Whatever is out of the usual (a store that is away, events that only SQL
has, late ones) is left to it: `then` gets None, or, where a method answers False, is not called at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from clicktide.member import Counted, position
from clicktide.read import past as pasts
from clicktide.read import timelines
from clicktide.read.accounts import Account, Ask
from clicktide.read.past import Held, Past, Seen, Stored
from clicktide.read.tally import Tally
from clicktide.read.timelines import First, Newest, Page, Printed, Wanted
from clicktide.row import OCCURRED_AT
from services.query.accounts import Accounts
from services.query.memory import Memory, Told, told_anew
from services.query.stores import Stores


class _Matching(NamedTuple):
    """What Redis has of a page: `matched` events down to `oldest` (ms), of the `card` that it holds. `page` makes the page of them, told whether
    something may follow; `seen` is what they say of all that Redis holds, None where they are not all."""

    card: int
    matched: int
    oldest: int
    page: Callable[[bool], Page | Printed]
    seen: Callable[[], Seen | None]


class Soon:
    """Users are named as the stores do, with their shard."""

    def __init__(self, namespace: str, stores: Stores, accounts: Accounts, memory: Memory) -> None:
        self._namespace, self._stores, self._accounts, self._memory = namespace, stores, accounts, memory

    def page(
        self, shard: int, user_id: str, wanted: Wanted, then: Callable[[Page | Printed | None], None]
    ) -> bool:
        """`Histories.page`."""

        def printed(first: First | None) -> None:
            if first is None:
                then(None)
                return
            if first.text is None:
                if not by_rows():
                    then(None)
                return
            text, last, members = first.text, first.last, first.members
            count, oldest = len(members), last[0] if last else 0

            def page(more: bool) -> Printed:
                return Printed(text, last if more or count == wanted.limit else None)

            def seen() -> Seen | None:
                if first.card != count:
                    return None
                return Seen(count, position(members[0])[0] if members else 0, oldest)

            self._settle(shard, user_id, wanted, _Matching(first.card, count, oldest, page, seen), then)

        def found(newest: Newest | None) -> None:
            if newest is None or newest.cut_off:
                then(None)
                return
            held, rows = newest.rows, timelines.matching(newest.rows, wanted)
            oldest = rows[-1][OCCURRED_AT] if rows else 0

            def page(more: bool) -> Page:
                return timelines.page(rows, wanted.limit, more=more)

            def seen() -> Seen | None:
                if newest.card != len(held):
                    return None
                return Seen(len(held), held[0][OCCURRED_AT], held[-1][OCCURRED_AT]) if held else Seen(0, 0, 0)

            self._settle(shard, user_id, wanted, _Matching(newest.card, len(rows), oldest, page, seen), then)

        def by_rows() -> bool:
            return self._stores.redis_soon(timelines.newest(self._namespace, shard, user_id, wanted), found)

        if not wanted.newest_only:
            return by_rows()
        # Its events need not be looked at one by one.
        read = timelines.first(self._namespace, shard, user_id, wanted.limit)
        return self._stores.redis_soon(read, printed)

    def _settle(
        self,
        shard: int,
        user_id: str,
        wanted: Wanted,
        matching: _Matching,
        then: Callable[[Page | Printed | None], None],
    ) -> None:
        sure = self._memory.sure(user_id, wanted, matching.card, matching.matched, matching.oldest)
        if sure is not None:
            whole, enough = sure
            then(matching.page(not whole) if enough else None)
            return

        def learned(past: Past | None) -> None:
            then(matching.page(False) if past is not None and past.whole else None)

        if (seen := matching.seen()) is not None:
            ask = self._memory.question(shard, user_id, seen)
            if self._memory.may_stay_unread(seen, ask):
                self._ask(ask, lambda stored: self._memory.learn_unread(ask, seen, stored), learned)
                return
        if not self._held(shard, user_id, lambda _, past: learned(past)):
            then(None)

    def tally(self, shard: int, user_id: str, then: Callable[[Told | None], None]) -> bool:
        """`Histories.tally`."""
        past = self._memory.past(user_id)
        if past is None:
            return self._held(
                shard,
                user_id,
                lambda events, learned: then(None if learned is None else told_anew(learned, events)),
            )

        def found(held: Held | None) -> None:
            if held is None or not self._memory.holds(past, held):
                then(None)
            else:
                then(self._memory.told(user_id, past, held))

        return self._stores.redis_soon(pasts.held(self._namespace, shard, user_id, past.cut), found)

    def _held(self, shard: int, user_id: str, then: Callable[[list[Counted], Past | None], None]) -> bool:
        """All that Redis has of the user, and the past by it."""

        def found(held: Held | None) -> None:
            if held is None:
                then([], None)
                return
            ask = self._memory.question(shard, user_id, Seen.of(held.events))
            self._ask(
                ask,
                lambda stored: self._memory.learn(ask, held.events, stored),
                lambda past: then(held.events, past),
            )

        return self._stores.redis_soon(pasts.held(self._namespace, shard, user_id, None), found)

    def _ask(
        self, ask: Ask, learn: Callable[[Stored], Past | None], then: Callable[[Past | None], None]
    ) -> None:
        def answered(account: Account | Exception) -> None:
            if isinstance(account, Exception) or account.older:
                then(None)
            else:
                then(learn(Stored(Tally(), account.inside, account.erased)))

        self._accounts.ask(ask, answered)
