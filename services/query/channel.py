"""A channel: one connection to Redis that all readers of a loop share, each getting its own replies.

redis-py makes the connection (address, password, database, TLS, Sentinel); from then on commands go out as they come and
replies are dealt out in order. That costs a seventh of a pooled pipeline's CPU (docs/decisions/0008-queries.md). Only reads may
go through it: what was asked on a connection that is lost is asked once more on a new one. Replies come in order, so one timer a
connection watches the one that has waited longest; a timer a call is a twentieth of a short answer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import hiredis
from redis._parsers import BaseParser
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

from clicktide.read.plan import SCRIPTS, Command, Read, T
from services.query.callbacks import awaited, tell

# What becomes of the replies: they (errors of single commands among them), or why there are none.
Then = Callable[[list[Any] | Exception], None]
Waiter = tuple[int, list[Any], Then, float]
# After a pause of this process the loop runs its timers first, and what Redis has answered meanwhile is unread.
_LAST_TURN_S = 0.05


class Channel:
    """`make` answers an unconnected `redis.asyncio` connection (RESP 2). Connects at the first call, and again when it is lost; who
    has waited `patience` seconds for a reply gets a `TimeoutError`, and the connection is left."""

    def __init__(self, make: Callable[[], Any], patience: float) -> None:
        self._make, self._patience = make, patience
        self._lock = asyncio.Lock()
        self._line: _Line | None = None

    async def read(self, read: Read[T], part: int = 0) -> T:
        """The answer to the read; with `part`, so many commands at a time, that others get their turn in between.

        Raises redis-py's errors.
        """
        for last in (False, True):
            replies: list[Any] = []
            for commands in _parts(read.commands, part):
                replies += await self._ask(commands)
            error = next((r for r in replies if isinstance(r, ResponseError)), None)
            if error is None:
                return read.fold(replies)
            if last or not isinstance(error, NoScriptError):
                raise error
            await self._ask([("SCRIPT", "LOAD", script.text) for script in SCRIPTS])
        raise AssertionError("unreachable")

    def at_once(self, commands: Sequence[Command]) -> asyncio.Future[list[Any]] | None:
        """The replies, errors among them, or `TimeoutError`, or redis-py's `ConnectionError`; None where there is no connection yet."""
        line = self._line
        if line is None or not line.alive:
            return None
        return line.ask(commands)

    def soon(self, commands: Sequence[Command], then: Then) -> bool:
        """As `at_once`, without a future: `then` is called as the replies come, and must not take long. False where there is no
        connection yet."""
        line = self._line
        if line is None or not line.alive:
            return False
        line.send(commands, then)
        return True

    def drop(self) -> None:
        """Leaves the connection; whoever waits for it gets an error."""
        line, self._line = self._line, None
        if line is not None:
            line.abort()

    async def _ask(self, commands: Sequence[Command]) -> list[Any]:
        if not commands:
            return []
        replies = self.at_once(commands)
        if replies is not None:
            try:
                return await replies
            except RedisConnectionError:
                if self._line is None:
                    raise  # it was dropped on purpose
        return await (await self._connected()).ask(commands)

    async def _connected(self) -> _Line:
        async with self._lock:
            if self._line is None or not self._line.alive:
                connection = self._make()
                await connection.connect()
                self._line = _Line(connection, self._patience)
            return self._line


class _Line(asyncio.Protocol):
    """A connection that redis-py has opened, taken over."""

    def __init__(self, connection: Any, patience: float) -> None:
        self._loop, self._patience = asyncio.get_running_loop(), patience
        self._watch: asyncio.TimerHandle | None = None
        # redis-py has no public way to give its socket away. The streams would close it when they are collected.
        self._streams = (connection._writer, connection._reader)  # noqa: SLF001
        connection._writer = connection._reader = None  # noqa: SLF001
        self._transport: asyncio.Transport = self._streams[0].transport
        self._reader = hiredis.Reader(replyError=BaseParser.parse_error)
        self._waiting: deque[Waiter] = deque()
        self.alive = True
        self._transport.set_protocol(self)

    def ask(self, commands: Sequence[Command]) -> asyncio.Future[list[Any]]:
        future: asyncio.Future[list[Any]]
        future, then = awaited()
        self.send(commands, then)
        return future

    def send(self, commands: Sequence[Command], then: Then) -> None:
        packed = b"".join([hiredis.pack_command(c) for c in commands])  # type: ignore[arg-type]
        loop = self._loop
        self._waiting.append((len(commands), [], then, loop.time() + self._patience))
        if self._watch is None:
            self._watch = loop.call_later(self._patience, self._look)
        self._transport.write(packed)

    def _look(self, *, last: bool = False) -> None:
        self._watch = None
        if not self._waiting:
            return  # the next one to ask starts it again
        wait = self._waiting[0][3] - self._loop.time()
        if wait > 0:
            self._watch = self._loop.call_later(wait, self._look)
        elif not last:
            self._watch = self._loop.call_later(_LAST_TURN_S, partial(self._look, last=True))
        else:
            self._end(TimeoutError(f"no reply after {self._patience:g} s"))

    def abort(self) -> None:
        self._end(RedisConnectionError("the connection was lost: closed"))

    def _end(self, error: Exception) -> None:
        self._transport.abort()
        self._fail(error)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while self._waiting:
                reply = self._reader.gets()
                if reply is False:
                    return
                wanted, got, then, _ = self._waiting[0]
                got.append(reply)
                if len(got) == wanted:
                    self._waiting.popleft()
                    tell(then, got)
        except hiredis.ProtocolError:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(RedisConnectionError(f"the connection was lost: {exc or 'closed'}"))

    def _fail(self, error: Exception) -> None:
        self.alive = False
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        waiting, self._waiting = self._waiting, deque()
        for _, _, then, _ in waiting:
            tell(then, error)


def _parts(commands: Sequence[Command], size: int) -> list[Sequence[Command]]:
    if not size:
        return [commands]
    return [commands[i : i + size] for i in range(0, len(commands), size)]
