"""Accounts that are asked for at the same time are asked of SQL together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from clicktide.errors import StoreUnavailable
from clicktide.read.accounts import MOST, Account, Ask
from services.query import accounts as module
from services.query.accounts import Accounts


def account_of(ask: Ask) -> Account:
    return Account(ask.since, ask.shard, erased=ask.user_id == "gone")


class Sql:
    """Two DSNs by the shard's parity; shards in `moved` are not where they were."""

    def __init__(self) -> None:
        self.moved: set[int] = set()

    def dsn_of(self, shard: int) -> int:
        return shard % 2

    def at_owner_of_all(self, index: int, shards: set[int], work: Callable[[Any], Any]) -> Any:
        assert {shard % 2 for shard in shards} == {index}
        return None if shards & self.moved else work(None)

    def at_owner(self, _shard: int, work: Callable[[Any], Any]) -> Any:
        return work(None)


class Stores:
    """Answers a question when `gate` lets it; `asked` are the names of those under way, in order."""

    def __init__(self) -> None:
        self.own = Sql()
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.error: StoreUnavailable | None = None
        self.near = False

    def sql_store(self) -> Sql:
        return self.own

    def dsn_of(self, shard: int) -> str:
        return f"mysql.{shard % 2}"

    def sql_now(self, index: int, ask: Callable[[Any], Any]) -> Any:
        if not self.near:
            return None
        self.asked.append(f"now.{index}")
        return ask(self.own)

    async def sql(self, name: str, ask: Callable[[Any], Any]) -> Any:
        self.asked.append(name)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return ask(self.own)


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many accounts each question was for."""
    found: list[int] = []

    def answer(_connection: Any, asks: list[Ask]) -> list[Account]:
        found.append(len(asks))
        return [account_of(ask) for ask in asks]

    monkeypatch.setattr(module, "accounts", answer)
    return found


async def begun(stores: Stores, asks: list[Ask]) -> list[asyncio.Task[Account]]:
    accounts = Accounts(stores)  # type: ignore[arg-type]
    tasks = [asyncio.create_task(accounts.of(ask)) for ask in asks]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


def asks(n: int, shard: int = 0) -> list[Ask]:
    return [Ask(shard, "gone" if i % 3 == 0 else f"u{i}", i, None) for i in range(n)]


def test_who_comes_meanwhile_goes_with_the_next_question(sizes: list[int]) -> None:
    async def work() -> None:
        stores = Stores()
        wanted = asks(MOST + 12)
        tasks = await begun(stores, wanted)
        assert stores.asked == ["mysql.0"] * 2
        stores.gate.set()
        assert await asyncio.gather(*tasks) == [account_of(ask) for ask in wanted]

    asyncio.run(work())
    assert sum(sizes) == MOST + 12
    assert max(sizes) == MOST


def test_each_dsn_is_asked_for_its_own(sizes: list[int]) -> None:
    async def work() -> None:
        stores = Stores()
        wanted = [*asks(4, shard=2), *asks(4, shard=3)]
        tasks = await begun(stores, wanted)
        stores.gate.set()
        assert await asyncio.gather(*tasks) == [account_of(ask) for ask in wanted]
        assert sorted(set(stores.asked)) == ["mysql.0", "mysql.1"]

    asyncio.run(work())
    assert sum(sizes) == 8


def test_a_shard_that_has_moved_is_asked_for_by_itself(sizes: list[int]) -> None:
    async def work() -> None:
        stores = Stores()
        stores.own.moved.add(4)
        wanted = [*asks(3, shard=2), *asks(3, shard=4)]
        tasks = await begun(stores, wanted)
        stores.gate.set()
        assert await asyncio.gather(*tasks) == [account_of(ask) for ask in wanted]

    asyncio.run(work())
    assert 1 in sizes


def test_a_store_that_is_away_says_so_to_all_and_is_asked_again(sizes: list[int]) -> None:
    async def work() -> None:
        stores = Stores()
        accounts = Accounts(stores)  # type: ignore[arg-type]
        stores.error = StoreUnavailable("mysql.0", "gone")
        stores.gate.set()
        said = await asyncio.gather(*(accounts.of(ask) for ask in asks(5)), return_exceptions=True)
        assert [type(e) for e in said] == [StoreUnavailable] * 5
        stores.error = None
        assert await accounts.of(asks(1)[0]) == account_of(asks(1)[0])

    asyncio.run(work())
    assert sizes == [1]


def test_one_who_leaves_takes_nobody_along(sizes: list[int]) -> None:
    async def work() -> None:
        stores = Stores()
        wanted = asks(6)
        tasks = await begun(stores, wanted)
        tasks[4].cancel()
        stores.gate.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(found.pop(4), asyncio.CancelledError)
        assert found == [account_of(ask) for i, ask in enumerate(wanted) if i != 4]

    asyncio.run(work())
    assert sum(sizes) == 6


def test_a_file_is_asked_without_a_thread_for_all_who_come_together(sizes: list[int]) -> None:
    async def work() -> None:
        stores = Stores()
        stores.near = True
        wanted = asks(MOST + 3)
        tasks = await begun(stores, wanted)
        assert await asyncio.gather(*tasks) == [account_of(ask) for ask in wanted]
        assert stores.asked == ["now.0"] * 2

    asyncio.run(work())
    assert sizes == [MOST, 3]


def test_what_a_file_does_not_say_at_once_a_thread_asks(sizes: list[int]) -> None:
    async def work() -> None:
        stores = Stores()
        stores.near = True
        stores.own.moved.add(4)
        stores.gate.set()
        tasks = await begun(stores, asks(2, shard=4))
        assert await asyncio.gather(*tasks) == [account_of(ask) for ask in asks(2, shard=4)]

    asyncio.run(work())
    assert sizes == [1, 1]


def test_whoever_asks_without_a_task_is_told_the_account_or_why_there_is_none(sizes: list[int]) -> None:
    async def work() -> None:
        stores = Stores()
        accounts = Accounts(stores)  # type: ignore[arg-type]
        told: asyncio.Queue[Account | Exception] = asyncio.Queue()

        def fails(_: Account | Exception) -> None:
            raise RuntimeError

        ask, moved = asks(1)[0], asks(1, shard=4)[0]
        stores.gate.set()
        accounts.ask(ask, fails)
        accounts.ask(ask, told.put_nowait)
        assert await told.get() == account_of(ask)
        stores.own.moved.add(4)
        accounts.ask(moved, told.put_nowait)
        assert isinstance(await told.get(), LookupError)
        stores.error = StoreUnavailable("mysql.0", "gone")
        accounts.ask(ask, told.put_nowait)
        assert await told.get() is stores.error

    asyncio.run(work())
    assert sizes == [2]


def test_nobody_waits_on_when_the_service_ends(sizes: list[int]) -> None:
    """The threads' pool cancels what it has not begun."""

    async def work() -> None:
        stores = Stores()

        async def ends(_name: str, _ask: Callable[[Any], Any]) -> Any:
            await stores.gate.wait()
            raise asyncio.CancelledError

        stores.sql = ends  # type: ignore[method-assign]
        tasks = await begun(stores, asks(MOST + 3))
        stores.gate.set()
        found = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert {type(e) for e in found} == {StoreUnavailable}

    asyncio.run(work())
    assert sizes == []
