"""Erasure: a user leaves the stores for good, and whatever comes later of him is dropped.

Promises: when `erase` has returned, no row, order or timeline of the user is there, and none comes back: not by slices in
flight, replays, retries, or a Redis that loses its last second or everything. Sums, and distinct counts, which name nobody,
stay. It may be stopped anywhere and called again. docs/decisions/0009-erasure.md says why it holds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from clicktide import topics
from clicktide.errors import StoreUnavailable
from clicktide.log.port import Log, TopicPartition
from clicktide.pseudonym import stored_id
from clicktide.redisstore import erased
from clicktide.redisstore.client import connect
from clicktide.redisstore.cluster import STORE
from clicktide.retry.letters import Letters
from clicktide.settings import Settings
from clicktide.shards import shard_of
from clicktide.sql import SqlStore

_ROUNDS = 3


class Report(NamedTuple):
    """What was erased: events of the timeline in Redis, rows of events and of orders in SQL; and how many records are left
    on the log, where they count as erased and are gone with its retention (None: not counted)."""

    redis: int
    mysql: int
    orders: int
    retry: int | None = None
    dead: int | None = None


class Erasure:
    """Erases users, named as in their events. `now` gives ms since the epoch, `wait` lets so many seconds pass."""

    def __init__(self, settings: Settings, now: Callable[[], int], wait: Callable[[float], None]) -> None:
        self._settings, self._now, self._wait = settings, now, wait
        self._namespace = settings.text("redis.namespace")
        self._sql = SqlStore(settings)
        self._redis = connect(settings)

    def erase(self, user_id: str, log: Log | None = None) -> Report:
        """Erase the user, and count what a `log` still has of him. Takes a bit over two seconds, so long Redis may take to
        sync. Raises `StoreUnavailable`, `LogUnavailable`: the same call goes on."""
        name, user_id = user_id, stored_id(self._settings, user_id)
        shard = self._shard(user_id)
        # SQL first: it is what a Redis that has lost everything is told from.
        self._sql.entomb(shard, user_id, self._now())
        events = self._tell(shard, user_id)
        gone = self._sql.erase_user(shard, user_id)
        retry, dead = (None, None) if log is None else on_log(log, self._settings.text("topics.prefix"), name)
        return Report(events, gone["events"], gone["orders"], retry, dead)

    def lift(self, user_id: str) -> bool:
        """Let the user's events in again, from now on; what was erased stays so. Answers whether he was erased."""
        user_id = stored_id(self._settings, user_id)
        shard = self._shard(user_id)
        was = self._sql.is_erased(shard, user_id)
        self._sql.entomb(shard, user_id, self._now(), lifted=True)
        erased.lift(self._redis, self._namespace, shard, user_id)
        erased.settle(self._redis, self._wait)
        # Once more: a worker that was filling an empty Redis may have asked SQL before.
        erased.lift(self._redis, self._namespace, shard, user_id)
        return was

    def is_erased(self, user_id: str) -> bool:
        """As SQL says now. Raises `StoreUnavailable`."""
        user_id = stored_id(self._settings, user_id)
        return self._sql.is_erased(self._shard(user_id), user_id)

    def close(self) -> None:
        self._sql.close()
        self._redis.close()

    def _shard(self, user_id: str) -> int:
        return shard_of(user_id, self._settings.integer("shards.count"))

    def _tell(self, shard: int, user_id: str) -> int:
        """Redis knows, and will after a crash; answers how many events it had."""
        events = 0
        for _ in range(_ROUNDS):
            events += erased.tell(self._redis, self._namespace, shard, self._sql.erased_users(shard))
            erased.settle(self._redis, self._wait)
            if erased.knows(self._redis, self._namespace, shard, user_id):
                return events
        raise StoreUnavailable(STORE, "it forgets who is erased")


def on_log(log: Log, prefix: str, user_id: str) -> tuple[int, int]:
    """How many records of the user the retry topics and `dead` still hold, done with or not."""
    consumer = log.consumer("erasure")
    letters = Letters(consumer, prefix)
    found = []
    try:
        known = consumer.topics()
        for group in (topics.RETRY, (topics.DEAD,)):
            partitions = [
                TopicPartition(prefix + name, p)
                for name in group
                if prefix + name in known
                for p in range(known[prefix + name].partitions)
            ]
            records = letters.records(consumer.bounds(partitions)) if partitions else ()
            found.append(sum(record.key == user_id.encode() for record in records))
    finally:
        consumer.close()
    return found[0], found[1]
