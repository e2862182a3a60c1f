"""Accounts: what SQL has of users, asked for many at a time.

A thread's turn costs the service more than SQL's answer. While a DSN answers, whoever comes waits and goes with the next
question; two may be under way at a time, so that a slow one holds up few.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from clicktide.read.accounts import MOST, Account, Ask, accounts
from services.query.stores import Stores

if TYPE_CHECKING:
    from clicktide.sql import SqlStore

_AT_A_TIME = 2
_Waiting = deque[tuple[Ask, "asyncio.Future[Account | None]"]]


@dataclass(slots=True)
class _Lane:
    waiting: _Waiting = field(default_factory=deque)
    asking: set[asyncio.Task[None]] = field(default_factory=set)


class Accounts:
    """Used from one event loop."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._lanes: dict[int, _Lane] = {}

    async def of(self, ask: Ask) -> Account:
        """The account. Raises `StoreError`."""
        index = self._stores.sql_store().dsn_of(ask.shard)
        lane = self._lanes.setdefault(index, _Lane())
        future: asyncio.Future[Account | None] = asyncio.get_running_loop().create_future()
        lane.waiting.append((ask, future))
        if len(lane.asking) < _AT_A_TIME:
            task = asyncio.get_running_loop().create_task(self._answer(index, lane))
            lane.asking.add(task)
            task.add_done_callback(lane.asking.discard)
        found = await future
        if found is not None:
            return found

        def alone(sql: SqlStore) -> Account:
            return sql.at_owner(ask.shard, lambda c: accounts(c, [ask]))[0]

        return await self._stores.sql(self._stores.dsn_of(ask.shard), alone)

    async def _answer(self, index: int, lane: _Lane) -> None:
        while lane.waiting:
            together = [lane.waiting.popleft() for _ in range(min(MOST, len(lane.waiting)))]
            asks = [ask for ask, _ in together]
            ask_all: Callable[[SqlStore], list[Account] | None] = partial(_asked, index=index, asks=asks)
            try:
                answers = await self._stores.sql(f"mysql.{index}", ask_all)
            except Exception as e:
                for _, future in together:
                    if not future.done():
                        future.set_exception(e)
                continue
            # Where a shard has moved, each asks for itself.
            found: Sequence[Account | None] = [None] * len(asks) if answers is None else answers
            for (_, future), account in zip(together, found, strict=True):
                if not future.done():
                    future.set_result(account)


def _asked(sql: SqlStore, index: int, asks: Sequence[Ask]) -> list[Account] | None:
    return sql.at_owner_of_all(index, {ask.shard for ask in asks}, lambda c: accounts(c, asks))
