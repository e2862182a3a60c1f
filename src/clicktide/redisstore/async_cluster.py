"""Reads of a Redis Cluster for the services: one pipeline a node, all at the same time.

Promises: as `cluster`: MOVED is followed, a slot that is being handed over is not read half here and half there.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import redis
from redis.asyncio.cluster import ClusterNode, PipelineCommand
from redis.asyncio.cluster import RedisCluster as Client
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import MovedError, NoScriptError, RedisClusterException
from redis.retry import Retry

from clicktide.redisstore.cluster import ROUNDS, Command, as_part, parts_of

NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


class AsyncCluster:
    """Used from one event loop; connects on first use, and anew after a node failed."""

    def __init__(self, url: str, timeout_s: float, options: Mapping[str, Any] = NO_OPTIONS) -> None:
        first, others = parts_of(url)
        self._client: Any = Client.from_url(
            first,
            startup_nodes=[ClusterNode(host, port) for host, port in others],
            require_full_coverage=False,
            retry=Retry(NoBackoff(), 1),
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            **options,
        )

    async def aclose(self) -> None:
        await self._client.aclose()

    async def send(
        self, calls: Sequence[tuple[str, Command]], load: Callable[[Any], Awaitable[None]] | None = None
    ) -> list[Any]:
        """The answers in order. Raises the first error: a read needs all its parts. `load(node)` as in `Cluster.send`."""
        for last in (False, True):
            try:
                return await self._send(calls, load)
            except (redis.ConnectionError, redis.TimeoutError, RedisClusterException, OSError) as e:
                # The table may be out of date with it: it is read anew. One more try at once mends a connection that a
                # restarted server has closed.
                await self._client.aclose()
                if last or isinstance(e, redis.TimeoutError):
                    raise
        raise AssertionError("unreachable")

    async def _send(
        self, calls: Sequence[tuple[str, Command]], load: Callable[[Any], Awaitable[None]] | None
    ) -> list[Any]:
        await self._client.initialize()
        answers: list[Any] = [None] * len(calls)
        waiting = list(range(len(calls)))
        for _ in range(ROUNDS):
            by_node: defaultdict[Any, list[int]] = defaultdict(list)
            for i in waiting:
                by_node[self._client.nodes_manager.get_node_from_slot(key_slot(calls[i][0].encode()))].append(
                    i
                )
            found = await asyncio.gather(
                *(_ask(node, [calls[i][1] for i in its]) for node, its in by_node.items())
            )
            waiting = []
            for (node, its), replies in zip(by_node.items(), found, strict=True):
                if load is not None and any(isinstance(r, NoScriptError) for r in replies):
                    await load(node)
                for i, reply in zip(its, replies, strict=True):
                    answers[i] = reply
                    if isinstance(reply, MovedError):
                        await self._client.nodes_manager.move_slot(reply)
                    if isinstance(reply, MovedError) or (
                        load is not None and isinstance(reply, NoScriptError)
                    ):
                        waiting.append(i)
            if not waiting:
                break
        for answer in answers:
            if isinstance(answer, Exception):
                raise as_part(answer)
        return answers


async def _ask(node: Any, commands: list[Command]) -> list[Any]:
    stack = [PipelineCommand(i, *command) for i, command in enumerate(commands)]
    await node.execute_pipeline(stack)
    for command in stack:
        if isinstance(command.result, redis.ConnectionError | redis.TimeoutError | OSError):
            raise command.result
    return [command.result for command in stack]
