"""Accounts: what SQL has of users, asked for many at a time.

A thread's turn costs the service more than SQL's answer: SQLite's files are asked without one. While a DSN answers, whoever comes waits and goes with the next
question; two may be under way at a time, so that a slow one holds up few.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from clicktide.errors import StoreUnavailable
from clicktide.read.accounts import MOST, Account, Ask, accounts
from services.query.callbacks import awaited, tell
from services.query.stores import Stores

if TYPE_CHECKING:
    from clicktide.sql import SqlStore

_AT_A_TIME = 2
# None: the shard is not where it was, so each has to ask for itself.
_Then = Callable[[Account | Exception | None], None]


@dataclass(slots=True)
class _Lane:
    waiting: deque[tuple[Ask, _Then]] = field(default_factory=deque)
    asking: set[asyncio.Task[None]] = field(default_factory=set)
    begun: bool = False

    def next(self) -> list[tuple[Ask, _Then]]:
        """The next question's part."""
        return [self.waiting.popleft() for _ in range(min(MOST, len(self.waiting)))]


class Accounts:
    """Used from one event loop."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._lanes: dict[int, _Lane] = {}

    async def of(self, ask: Ask) -> Account:
        """The account. Raises `StoreError`."""
        future: asyncio.Future[Account | None]
        future, then = awaited()
        self._enter(ask, then)
        found = await future
        if found is not None:
            return found

        def alone(sql: SqlStore) -> Account:
            return sql.at_owner(ask.shard, lambda c: accounts(c, [ask]))[0]

        return await self._stores.sql(self._stores.dsn_of(ask.shard), alone)

    def ask(self, ask: Ask, then: Callable[[Account | Exception], None]) -> None:
        """As `of`, without a task: `then` gets the account, or why there is none this way."""

        def told(found: Account | Exception | None) -> None:
            then(LookupError("the shard has moved") if found is None else found)

        self._enter(ask, told)

    def _enter(self, ask: Ask, then: _Then) -> None:
        index = self._stores.sql_store().dsn_of(ask.shard)
        lane = self._lanes.setdefault(index, _Lane())
        lane.waiting.append((ask, then))
        if not lane.begun and len(lane.asking) < _AT_A_TIME:
            # Those who come in the same turn of the loop go together.
            lane.begun = True
            asyncio.get_running_loop().call_soon(self._begin, index, lane)

    def _begin(self, index: int, lane: _Lane) -> None:
        lane.begun = False
        while lane.waiting:
            together = lane.next()
            asks = [ask for ask, _ in together]
            answers = self._stores.sql_now(index, partial(_asked, index=index, asks=asks))
            if answers is None:
                lane.waiting.extendleft(reversed(together))
                questions = -(-len(lane.waiting) // MOST)
                for _ in range(min(questions, _AT_A_TIME - len(lane.asking))):
                    task = asyncio.get_running_loop().create_task(self._answer(index, lane))
                    lane.asking.add(task)
                    task.add_done_callback(lane.asking.discard)
                return
            _tell(together, answers)

    async def _answer(self, index: int, lane: _Lane) -> None:
        while lane.waiting:
            together = lane.next()
            asks = [ask for ask, _ in together]
            ask_all: Callable[[SqlStore], list[Account] | None] = partial(_asked, index=index, asks=asks)
            answers: Sequence[Account | Exception | None] | None
            try:
                answers = await self._stores.sql(f"mysql.{index}", ask_all)
            except asyncio.CancelledError:
                # The service ends, and its threads with it: nobody else would tell those who wait.
                together += lane.waiting
                lane.waiting.clear()
                error = StoreUnavailable(f"mysql.{index}", "the service ends")
                _tell(together, [error] * len(together))
                raise
            except Exception as e:
                answers = [e] * len(asks)
            _tell(together, [None] * len(asks) if answers is None else answers)


def _tell(together: Sequence[tuple[Ask, _Then]], answers: Sequence[Account | Exception | None]) -> None:
    for (_, then), found in zip(together, answers, strict=True):
        tell(then, found)


def _asked(sql: SqlStore, index: int, asks: Sequence[Ask]) -> list[Account] | None:
    return sql.at_owner_of_all(index, {ask.shard for ask in asks}, lambda c: accounts(c, asks))
