"""Soon: the usual questions about a user's history, answered as the stores' replies come, without a task each.

The same answers as those of `histories`, by the same `Memory`. Whatever is out of the usual (a store that is away, events that only SQL
has, late ones) is left to it: `then` gets None, or, where a method answers False, is not called at all.
"""

from __future__ import annotations

from collections.abc import Callable

from clicktide.read import past as pasts
from clicktide.read import timelines
from clicktide.read.accounts import Account
from clicktide.read.past import Held, Past, Stored
from clicktide.read.tally import Tally
from clicktide.read.timelines import Newest, Page, Wanted
from clicktide.row import Row
from services.query.accounts import Accounts
from services.query.memory import Memory, Told, told_anew
from services.query.stores import Stores


class Soon:
    """Users are named as the stores do, with their shard."""

    def __init__(self, namespace: str, stores: Stores, accounts: Accounts, memory: Memory) -> None:
        self._namespace, self._stores, self._accounts, self._memory = namespace, stores, accounts, memory

    def page(self, shard: int, user_id: str, wanted: Wanted, then: Callable[[Page | None], None]) -> bool:
        """`Histories.page`."""

        def found(newest: Newest | None) -> None:
            if newest is None or newest.cut_off:
                then(None)
                return
            matching = timelines.matching(newest.rows, wanted)

            def learned(past: Past | None) -> None:
                whole = past is not None and past.whole
                then(timelines.page(matching, wanted.limit, more=False) if whole else None)

            sure = self._memory.sure(user_id, wanted, newest, matching)
            if sure is None:
                if newest.card == len(newest.rows):
                    self._learn(shard, user_id, newest.rows, learned)
                elif not self._held(shard, user_id, lambda _, past: learned(past)):
                    then(None)
            elif sure[1]:
                then(timelines.page(matching, wanted.limit, more=not sure[0]))
            else:
                then(None)

        return self._stores.redis_soon(timelines.newest(self._namespace, shard, user_id, wanted), found)

    def tally(self, shard: int, user_id: str, then: Callable[[Told | None], None]) -> bool:
        """`Histories.tally`."""
        past = self._memory.past(user_id)
        if past is None:
            return self._held(
                shard,
                user_id,
                lambda rows, learned: then(None if learned is None else told_anew(learned, rows)),
            )

        def found(held: Held | None) -> None:
            if held is None or not self._memory.holds(past, held):
                then(None)
            else:
                then(self._memory.told(user_id, past, held))

        return self._stores.redis_soon(pasts.held(self._namespace, shard, user_id, past.cut), found)

    def _held(self, shard: int, user_id: str, then: Callable[[list[Row], Past | None], None]) -> bool:
        """All that Redis has of the user, and the past by it."""

        def found(held: Held | None) -> None:
            if held is None:
                then([], None)
                return
            self._learn(shard, user_id, held.rows, lambda past: then(held.rows, past))

        return self._stores.redis_soon(pasts.held(self._namespace, shard, user_id, None), found)

    def _learn(self, shard: int, user_id: str, rows: list[Row], then: Callable[[Past | None], None]) -> None:
        ask = self._memory.question(shard, user_id, rows)

        def answered(account: Account | Exception) -> None:
            if isinstance(account, Exception) or account.older:
                then(None)
            else:
                stored = Stored(Tally(), account.inside, account.erased)
                then(self._memory.learn(ask, rows, stored))

        self._accounts.ask(ask, answered)
