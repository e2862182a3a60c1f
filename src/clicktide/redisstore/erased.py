"""Erased users in Redis: told to it, made to last there, and taken back.

Promises: telling it and deleting what it has of a user is one atomic step, so that no event of the user comes in between.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import redis

from clicktide import keys
from clicktide.errors import StoreError, StoreUnavailable
from clicktide.redisstore.client import errors_named
from clicktide.redisstore.cluster import STORE, Cluster
from clicktide.redisstore.script import Script

_SECOND = 1.1  # `appendfsync everysec` begins a sync a second
_SYNC_S = 10.0


def tell(client: redis.Redis, namespace: str, shard: int, users: Sequence[str]) -> int:
    """Make Redis drop what comes of these users, and forget what it has; answers how many events it had."""
    return _run(client, namespace, shard, "erase", *users)


def lift(client: redis.Redis, namespace: str, shard: int, user: str) -> None:
    """Make Redis take the user's events again."""
    _run(client, namespace, shard, "lift", user)


def _run(client: redis.Redis, namespace: str, shard: int, *words: str) -> int:
    arguments = tuple(word.encode() for word in words)
    (answer,) = Script(client, "erase.lua").run({keys.shard_prefix(namespace, shard): arguments})
    if isinstance(answer, StoreError):
        raise answer
    return int(answer)


def knows(client: redis.Redis, namespace: str, shard: int, user: str) -> bool:
    """Whether Redis says that the user is erased."""
    with errors_named():
        return bool(client.sismember(keys.erased(namespace, shard), user))


def settle(client: redis.Redis, wait: Callable[[float], None]) -> None:
    """Return when all that was written until now has been synced to disk, a bit over two seconds later.

    Raises `StoreUnavailable` where the disk does not keep up. Of a cluster's nodes the time alone is waited for.
    """
    # A sync that runs at the first look may have begun before the write; at the second look one has begun after it.
    for _ in range(2):
        wait(_SECOND)
        deadline = time.monotonic() + _SYNC_S
        while not isinstance(client, Cluster) and _syncing(client):
            if time.monotonic() > deadline:
                raise StoreUnavailable(STORE, "its disk does not keep up")
            wait(0.05)


def _syncing(client: redis.Redis) -> bool:
    with errors_named():
        info = client.info("persistence")
    assert isinstance(info, dict)
    return bool(info.get("aof_pending_bio_fsync"))
