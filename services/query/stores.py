"""The stores as the query service reaches them: a deadline and a breaker each, and errors that name the store.

Promises: no call takes longer than `http.store_timeout_s` (and a little); once a store has failed, calls fail at once
until one that probes it succeeds. Everything raised is `StoreUnavailable`, `StoreRefused` or `LogError`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from clicktide.breaker import CLOSED, Breaker
from clicktide.errors import LogError, LogUnavailable, SettingError, StoreError, StoreUnavailable
from clicktide.log.port import Log
from clicktide.read.plan import Read, run_async
from clicktide.redisstore.async_cluster import AsyncCluster
from clicktide.redisstore.client import errors_named, tls_options
from clicktide.redisstore.cluster import is_cluster
from clicktide.settings import Settings
from services.query.channel import Channel
from services.telemetry import Telemetry

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from clicktide.sql import SqlStore

T = TypeVar("T")
_THREADS = 8
_CONNECTIONS = 16
# The loop does not wait for an SQLite file that another process has locked.
_NOW_S = 0.01
# A read of so many commands and more goes by the other channel, so many at a time: Redis answers others in between.
_WIDE, _PART = 24, 16


class Stores:
    """One a process, used from one event loop. `clock` is monotonic seconds."""

    def __init__(
        self,
        settings: Settings,
        log: Log,
        telemetry: Telemetry,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timeout = settings.number("http.store_timeout_s")
        self._settings = settings
        self._log, self._telemetry, self._clock = log, telemetry, clock
        self._failures = 1
        self._probe_s = min(1.0, settings.number("breaker.probe_s"))
        self._redis = connect(settings, self._timeout)
        self._narrow, self._wide = channels(self._redis, self._timeout)
        self._sql: SqlStore | None = None
        self._near: SqlStore | None = None
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="stores")
        # Log handles belong to one thread at a time; a long search must not hold up the lag.
        self._lanes = {lane: ThreadPoolExecutor(1, thread_name_prefix=lane) for lane in ("lag", "search")}
        self._breakers: dict[str, Breaker] = {}
        self._redis_up = self._breaker("redis")

    @property
    def away(self) -> list[str]:
        """Stores whose breaker is not closed now, by name: while one is probed it is not back yet."""
        return sorted(name for name, b in self._breakers.items() if b.state != CLOSED)

    async def redis(self, read: Read[T]) -> T:
        """One pipeline, or for a wide read a few, one after the other."""
        if self._narrow is not None and len(read.commands) < _WIDE and self._redis_up.state == CLOSED:
            # The usual case, without what the others need: the line keeps the deadline.
            replies = self._narrow.at_once(read.commands)
            if replies is not None and (found := await self._replied(replies)) is not None:
                return read.fold(found)

        async def ask() -> T:
            with errors_named():
                if self._narrow is None or self._wide is None:
                    return await run_async(self._redis, read)
                if len(read.commands) < _WIDE:
                    return await self._narrow.read(read)
                return await self._wide.read(read, _PART)

        return await self._guarded("redis", ask)

    def redis_soon(self, read: Read[T], then: Callable[[T | None], None]) -> bool:
        """The usual case without a task: `then` gets the answer, or None where `redis` has to be asked for it. False where this
        is not the usual case."""
        if self._narrow is None or len(read.commands) >= _WIDE or self._redis_up.state != CLOSED:
            return False

        def replied(replies: list[Any] | Exception) -> None:
            then(self._folded(read, replies))

        return self._narrow.soon(read.commands, replied)

    def _folded(self, read: Read[T], replies: list[Any] | Exception) -> T | None:
        if isinstance(replies, TimeoutError):
            self._failed("redis", self._redis_up)
        if isinstance(replies, Exception) or _refused(replies):
            return None
        try:
            return read.fold(replies)
        except Exception:  # `redis` says of what
            return None

    async def _replied(self, replies: asyncio.Future[list[Any]]) -> list[Any] | None:
        """The replies; None where they have to be asked for once more."""
        try:
            found = await replies
        except TimeoutError:
            self._failed("redis", self._redis_up)
            raise _away("redis", f"no answer after {self._timeout:g} s") from None
        except RedisConnectionError:
            return None
        return None if _refused(found) else found

    async def sql(self, name: str, ask: Callable[[SqlStore], T]) -> T:
        """`ask` runs in a thread. `name` is the store that it needs: `mysql.<dsn>`."""
        return await self._guarded(name, lambda: self._in_thread(ask))

    def sql_now(self, index: int, ask: Callable[[SqlStore], T]) -> T | None:
        """What a short question finds in the DSN where that is a file of this machine, on the loop's own thread. None where `sql` has to
        be asked: it is a server, it is locked, or it failed.

        Handed to a thread such a question costs three times as much, and both threads wait for each other's lock.
        """
        try:
            near = self._near
            if near is None:
                near = self._near = self._sql_store(_NOW_S)
            if not near.dsns[index].is_file or self._breaker(f"mysql.{index}").state != CLOSED:
                return None
            return ask(near)
        except Exception:  # `sql` says of what
            return None

    async def sql_everywhere(
        self, ask: Callable[[Connection, list[int]], T | None]
    ) -> tuple[list[T], StoreError | None]:
        """What `ask` finds in the shards of each DSN, all asked at the same time, and the error of one that was not
        asked or did not answer."""

        async def one(index: int) -> T | None:
            return await self.sql(f"mysql.{index}", lambda sql: sql.at_dsn(index, ask))

        dsns = range(len(self.sql_store().dsns))
        answers = await asyncio.gather(*map(one, dsns), return_exceptions=True)
        found: list[T] = []
        error: StoreError | None = None
        for answer in answers:
            if isinstance(answer, StoreError):
                error = error or answer
            elif isinstance(answer, BaseException):
                raise answer
            elif answer is not None:
                found.append(answer)
        return found, error

    async def is_erased(self, shard: int, user_id: str) -> bool:
        """Whether the user was erased."""
        return await self.sql(self.dsn_of(shard), lambda sql: sql.is_erased(shard, user_id))

    async def ping(self, index: int) -> None:
        """Whether the DSN answers; raises `StoreUnavailable` when not."""
        await self.sql(f"mysql.{index}", partial(_ping, i=index))

    async def revive(self) -> None:
        """Asks the SQL servers that are away whether they are back (Redis and the log are asked by others)."""
        for name in self.away:
            if name.startswith("mysql."):
                with suppress(StoreError):
                    await self.ping(int(name.removeprefix("mysql.")))

    def _in_thread(self, ask: Callable[[SqlStore], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._pool, lambda: ask(self.sql_store()))

    def sql_store(self) -> SqlStore:
        """Made on first use; does not connect."""
        if self._sql is None:
            # A driver must give up no later than its caller, or its thread would be lost for longer.
            self._sql = self._sql_store(self._timeout)
        return self._sql

    def _sql_store(self, timeout_s: float) -> SqlStore:
        from clicktide.sql import SqlStore

        return SqlStore(Settings({**self._settings, "sql.timeout_s": timeout_s}))

    def dsn_of(self, shard: int) -> str:
        """The name of the store that holds the shard's rows."""
        return f"mysql.{self.sql_store().dsn_of(shard)}"

    async def log(self, ask: Callable[[Log], T], lane: str = "lag", seconds: float | None = None) -> T:
        """`ask` runs in the lane's one thread (`lag` or `search`) and must end by itself; its caller leaves after
        `seconds`."""
        loop = asyncio.get_running_loop()
        return await self._guarded(
            "log", lambda: loop.run_in_executor(self._lanes[lane], ask, self._log), seconds
        )

    async def close(self) -> None:
        self._drop("redis")
        await self._redis.aclose()
        if self._near is not None:
            self._near.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
        for pool in self._lanes.values():
            pool.shutdown(wait=False, cancel_futures=True)

    async def _guarded(self, name: str, ask: Callable[[], Awaitable[T]], seconds: float | None = None) -> T:
        breaker = self._breaker(name)
        if not breaker.allows():
            raise _away(name, "it failed just now")
        limit = self._timeout if seconds is None else seconds
        try:
            async with asyncio.timeout(limit):
                found = await ask()
        except TimeoutError:
            self._failed(name, breaker)
            raise _away(name, f"no answer after {limit:g} s") from None
        except (StoreError, LogError) as e:
            # Nothing is asked of the log that it could refuse for the asker's fault.
            if e.retriable or name == "log":
                self._failed(name, breaker)
            else:
                breaker.succeeded()
            raise
        except asyncio.CancelledError:
            # The caller left; that says nothing of the store, but a probe must not stay under way for ever.
            if breaker.state != CLOSED:
                breaker.failed()
            raise
        breaker.succeeded()
        return found

    def _breaker(self, name: str) -> Breaker:
        breaker = self._breakers.get(name)
        if breaker is None:
            breaker = self._breakers[name] = Breaker(self._clock, self._failures, self._probe_s)
        return breaker

    def _failed(self, name: str, breaker: Breaker) -> None:
        breaker.failed()
        self._drop(name)
        self._telemetry.store_failures.labels(name).inc()

    def _drop(self, name: str) -> None:
        # Whoever else waits on that connection would wait for nothing.
        for channel in (self._narrow, self._wide):
            if name == "redis" and channel is not None:
                channel.drop()


def _refused(replies: Sequence[Any]) -> bool:
    """Whether Redis answered one of the commands with an error."""
    return any(isinstance(reply, ResponseError) for reply in replies)


def channels(client: Any, patience: float) -> tuple[Channel | None, Channel | None]:
    """The channels for narrow and for wide reads, whose replies take `patience` seconds at most; none for a cluster, which has a
    connection a node."""
    if isinstance(client, AsyncCluster):
        return None, None
    make = client.connection_pool.make_connection
    return Channel(make, patience), Channel(make, patience)


def _ping(sql: SqlStore, i: int) -> None:
    sql.ping(i)


def connect(settings: Settings, timeout: float) -> Any:
    """An asyncio client for `redis.url`; connects on use. Answers are bytes."""
    url, options = settings.text("redis.url"), tls_options(settings)
    # One more try at once mends a connection that a restarted server has closed.
    retry = Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,))
    try:
        if is_cluster(url):
            return AsyncCluster(url, timeout, options)
        pool = redis.BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=timeout,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=retry,
            protocol=2,
            **options,
        )
        return redis.Redis.from_pool(pool)
    except ValueError as e:
        raise SettingError(f"setting redis.url: {e}") from e


def _away(name: str, detail: str) -> StoreUnavailable | LogUnavailable:
    return LogUnavailable(detail) if name == "log" else StoreUnavailable(name, detail)
