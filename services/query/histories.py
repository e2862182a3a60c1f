"""Histories: a user's events out of Redis as far as that is sure to have them all, else with SQL's.

SQL is asked once of a user whose events Redis holds completely, and what it said is remembered (`clicktide.read.past`); after
that Redis alone answers. Everything raised is a `StoreError`: neither store could answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from clicktide.errors import StoreError, StoreUnavailable
from clicktide.member import Counted, counted_of
from clicktide.pseudonym import stored_id
from clicktide.read import past as pasts
from clicktide.read import timelines
from clicktide.read.accounts import Account, Ask
from clicktide.read.before import MOST, tally_before
from clicktide.read.past import Held, Limits, Past, Seen, Stored
from clicktide.read.tally import Tally
from clicktide.read.timelines import Newest, Page, Printed, Wanted
from clicktide.row import OCCURRED_AT, Row
from clicktide.settings import Settings
from clicktide.shards import shard_of
from clicktide.sql import Cursor
from services.query.accounts import Accounts
from services.query.memory import Memory, Told, told_anew
from services.query.soon import Soon
from services.query.stores import Stores

if TYPE_CHECKING:
    from clicktide.sql import SqlStore

# Histories that are summed up at the same time: the other threads are for short questions.
_SUMS = 2


class Histories:
    """`now_ms` is the wall clock (ms), `clock` monotonic seconds."""

    def __init__(
        self, settings: Settings, stores: Stores, now_ms: Callable[[], int], clock: Callable[[], float]
    ) -> None:
        self._stores, self._now_ms, self._clock = stores, now_ms, clock
        self._namespace = settings.text("redis.namespace")
        self._shard_of = partial(shard_of, shards=settings.integer("shards.count"))
        # Callers name a person as the events do; the stores may know a pseudonym.
        self._stored_as = partial(stored_id, settings)
        self._limits = Limits.of(settings)
        self._accounts = Accounts(stores)
        self._memory = Memory(self._limits, now_ms, clock)
        self._soon = Soon(self._namespace, stores, self._accounts, self._memory)
        self._learning: dict[str, asyncio.Future[None]] = {}
        self._turns = asyncio.Semaphore(_SUMS)
        self._patience = settings.number("http.store_timeout_s")

    # Pages

    async def page(self, user_id: str, wanted: Wanted) -> Page:
        """The page; it has what one store knows where the other is away."""
        user_id = self._stored_as(user_id)
        shard = self._shard_of(user_id)
        matching: list[Row] = []
        redis_error: StoreError | None = None
        try:
            found = await self._stores.redis(timelines.newest(self._namespace, shard, user_id, wanted))
            if found.cut_off:
                found = await self._stores.redis(timelines.newest(self._namespace, shard, user_id, None))
            matching = timelines.matching(found.rows, wanted)
            whole, sure = await self._sure(shard, user_id, wanted, found, matching)
            if sure:
                return timelines.page(matching, wanted.limit, more=not whole)
        except StoreError as e:
            redis_error = e
        before = None if wanted.before is None else Cursor(*wanted.before)
        try:
            stored = await self._stores.sql(
                self._stores.dsn_of(shard),
                lambda sql: sql.events_of_user(
                    shard, user_id, wanted.types or None, wanted.since, wanted.until, before, wanted.limit
                ),
            )
        except StoreError:
            if redis_error is not None or not matching:
                raise
            return timelines.page(matching, wanted.limit, more=True)
        return timelines.page(timelines.merged(matching, stored, wanted.limit), wanted.limit, more=False)

    async def _sure(
        self, shard: int, user_id: str, wanted: Wanted, found: Newest, matching: list[Row]
    ) -> tuple[bool, bool]:
        """Whether the matching rows are all there are from first to last, and whether they make the page."""
        oldest = matching[-1][OCCURRED_AT] if matching else 0
        sure = self._memory.sure(user_id, wanted, found.card, len(matching), oldest)
        if sure is not None:
            return sure
        try:
            past = await self._learn(shard, user_id, found)
        except StoreError:
            return False, False
        whole = past is not None and past.whole
        return whole, whole

    def page_soon(self, user_id: str, wanted: Wanted, then: Callable[[Page | Printed | None], None]) -> bool:
        """As `page` in the usual case, without a task: `then` gets it, or None where `page` has to be asked. False where `then`
        will not be called."""
        user_id = self._stored_as(user_id)
        return self._soon.page(self._shard_of(user_id), user_id, wanted, then)

    def erased_known(self, user_id: str) -> bool | None:
        """As `is_erased` by what is remembered; None where SQL has to be asked."""
        return self._memory.erased(self._stored_as(user_id))

    async def is_erased(self, user_id: str) -> bool:
        """Whether the user of whom nothing was found was erased, as SQL said some seconds ago at most. Raises `StoreError`
        where nobody can say."""
        known = self.erased_known(user_id)
        if known is not None:
            return known
        user_id = self._stored_as(user_id)
        shard = self._shard_of(user_id)
        return (await self._accounts.of(Ask(shard, user_id, self._now_ms(), None))).erased

    # Tallies

    async def tally(self, user_id: str) -> Told:
        """What all of the user's events come to, as a tally (not to be changed) and events that are not in it; and whether that
        is exact: none that came late, no store is missing."""
        user_id = self._stored_as(user_id)
        shard = self._shard_of(user_id)
        try:
            good = await self._still_good(shard, user_id)
            if good is None and (other := self._learning.get(user_id)) is not None:
                await asyncio.wait({other})  # alone it would be cancelled with whoever waits
                good = await self._still_good(shard, user_id)
            if good is None:
                return await self._tally_anew(shard, user_id)
        except StoreError:
            # Redis is away; its part is in SQL too.
            return await self._all(shard, user_id)
        return self._memory.told(user_id, *good)

    def tally_soon(self, user_id: str, then: Callable[[Told | None], None]) -> bool:
        """As `tally` in the usual case, likewise."""
        user_id = self._stored_as(user_id)
        return self._soon.tally(self._shard_of(user_id), user_id, then)

    async def _still_good(self, shard: int, user_id: str) -> tuple[Past, Held] | None:
        """A past, and what Redis has above it, which are all of the user's events together; None if it has to be learned anew."""
        past = self._memory.past(user_id)
        if past is None:
            return None
        found = await self._stores.redis(pasts.held(self._namespace, shard, user_id, past.cut))
        clock = self._clock()
        if pasts.fresh(past, clock) and pasts.outrun(found, self._limits):
            return await self._caught_up(shard, user_id, past)
        if not pasts.still_holds(past, found, self._limits, clock):
            return None
        if not pasts.due(past, found, self._limits, clock):
            return past, found
        try:
            below = (await self._accounts.of(Ask(shard, user_id, past.cut, None))).older
        except StoreError:
            return past, found  # as good as it was, which is `approximate`
        confirmed = pasts.confirmed(past, below, self._clock())
        return None if confirmed is None else (confirmed, found)

    async def _caught_up(self, shard: int, user_id: str, past: Past) -> tuple[Past, Held] | None:
        events = (await self._stores.redis(pasts.held(self._namespace, shard, user_id, None))).events
        since = pasts.asked_since(Seen.of(events), self._limits, self._now_ms())
        if len(events) < self._limits.length or since < past.cut:
            return None
        try:
            gap = await self._tally_before(shard, user_id, since, past.cut)
        except StoreError:
            return None
        return None if gap.events >= MOST else pasts.caught_up(past, events, gap, since)

    async def _tally_anew(self, shard: int, user_id: str) -> Told:
        # A long history is not summed up for each of those who ask for it at the same time.
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._learning[user_id] = done
        try:
            return await self._learned_tally(shard, user_id)
        finally:
            if self._learning.get(user_id) is done:
                del self._learning[user_id]
            done.set_result(None)

    async def _learned_tally(self, shard: int, user_id: str) -> Told:
        found = await self._stores.redis(pasts.held(self._namespace, shard, user_id, None))
        try:
            past = await self._learned(shard, user_id, found.events)
            if past is None:
                # Redis lacks events that SQL has: what waits for it comes by the retry topics.
                return await self._all(shard, user_id)
        except StoreError:
            if not found.events:
                raise
            return Told(Tally(), found.events, exact=False)
        return told_anew(past, found.events)

    async def _learn(self, shard: int, user_id: str, found: Newest) -> Past | None:
        """`found` is what Redis has just said, which may be all that it holds."""
        events = [counted_of(row) for row in found.rows]
        if found.card != len(events):
            events = (await self._stores.redis(pasts.held(self._namespace, shard, user_id, None))).events
        return await self._learned(shard, user_id, events)

    async def _learned(self, shard: int, user_id: str, events: list[Counted]) -> Past | None:
        ask = self._memory.question(shard, user_id, Seen.of(events))
        return self._memory.learn(ask, events, await self._stored(ask, await self._accounts.of(ask)))

    async def _stored(self, ask: Ask, account: Account) -> Stored:
        if not account.older:
            return Stored(Tally(), account.inside, account.erased)
        tally = await self._tally_before(ask.shard, ask.user_id, ask.since)
        left_out = max(0, account.older - tally.events) if account.older > MOST else 0
        return Stored(tally, account.inside, account.erased, left_out)

    async def _all(self, shard: int, user_id: str) -> Told:
        tally = await self._tally_before(shard, user_id, None)
        return Told(tally, [], tally.events < MOST)

    async def _tally_before(
        self, shard: int, user_id: str, since: int | None, start: int | None = None
    ) -> Tally:
        def ask(sql: SqlStore) -> Tally:
            return sql.at_owner(shard, lambda c: tally_before(c, shard, user_id, since, start))

        name = self._stores.dsn_of(shard)
        try:
            async with asyncio.timeout(self._patience):
                await self._turns.acquire()
        except TimeoutError:
            # Not the store's fault: its breaker need not know.
            raise StoreUnavailable(name, "too many long histories are asked for") from None
        try:
            return await self._stores.sql(name, ask)
        finally:
            self._turns.release()
