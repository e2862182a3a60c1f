"""A read of Redis as a value: the commands, and how their replies become the answer.

One read is one pipeline, whatever it asks. `run` and `run_async` load the scripts where the server has lost them;
what the client raises passes through.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha1
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from redis.exceptions import NoScriptError

from clicktide.redisstore.async_cluster import AsyncCluster
from clicktide.redisstore.cluster import Cluster

T = TypeVar("T")
U = TypeVar("U")
Command = tuple[str | int | bytes, ...]


class Script(NamedTuple):
    """A Lua script and the digest that names it on the server."""

    text: str
    sha: str

    @classmethod
    def of(cls, name: str) -> Script:
        text = Path(__file__).with_name(name).read_text("utf-8")
        return cls(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


RANGE = Script.of("range.lua")
SUMS = Script.of("sums.lua")
SCRIPTS = (RANGE, SUMS)


class Read(NamedTuple, Generic[T]):
    """`fold` gets the replies in the order of `commands`; it runs once and keeps nothing."""

    commands: list[Command]
    fold: Callable[[list[Any]], T]


def both(first: Read[T], second: Read[U]) -> Read[tuple[T, U]]:
    """Two reads in one pipeline."""
    cut = len(first.commands)
    return Read(
        first.commands + second.commands,
        lambda replies: (first.fold(replies[:cut]), second.fold(replies[cut:])),
    )


def run(redis: Any, read: Read[T]) -> T:
    """Asks a `redis.Redis` or a `Cluster` (bytes replies)."""
    if isinstance(redis, Cluster):
        return read.fold(_complete(redis.send(_routed(read.commands), _load)))
    for last in (False, True):
        pipe = redis.pipeline(transaction=False)
        for command in read.commands:
            pipe.execute_command(*command)
        try:
            return read.fold(pipe.execute())
        except NoScriptError:
            if last:
                raise
            for script in SCRIPTS:
                redis.script_load(script.text)
    raise AssertionError("unreachable")


async def run_async(redis: Any, read: Read[T]) -> T:
    """Asks a `redis.asyncio.Redis` or an `AsyncCluster` (bytes replies)."""
    if isinstance(redis, AsyncCluster):
        return read.fold(await redis.send(_routed(read.commands), _load_async))
    for last in (False, True):
        async with redis.pipeline(transaction=False) as pipe:
            for command in read.commands:
                pipe.execute_command(*command)
            try:
                return read.fold(await pipe.execute())
            except NoScriptError:
                if last:
                    raise
        for script in SCRIPTS:
            await redis.script_load(script.text)
    raise AssertionError("unreachable")


def _routed(commands: list[Command]) -> list[tuple[str, Command]]:
    """Each command with the key that says its node."""
    return [(str(c[3] if c[0] == "EVALSHA" else c[1]), c) for c in commands]


def _complete(replies: list[Any]) -> list[Any]:
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def _load(server: Any) -> None:
    for script in SCRIPTS:
        server.script_load(script.text)


async def _load_async(node: Any) -> None:
    for script in SCRIPTS:
        await node.execute_command("SCRIPT LOAD", script.text)
