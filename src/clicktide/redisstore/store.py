"""The fast store as the bolts use it: apply a slice's rows, each event once.

It goes out as one pipeline of one script call a shard, and may be repeated at will, whole or in part: what has
been done is not done again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import redis

from clicktide import aggregate, claims, keys
from clicktide.aggregate import Effects
from clicktide.errors import StoreError, StoreUnavailable
from clicktide.redisstore.client import connect, errors_named, whole_seconds
from clicktide.redisstore.cluster import STORE, PartAway
from clicktide.redisstore.erased import tell
from clicktide.redisstore.script import Arguments, Script
from clicktide.row import SHARD, USER_ID, Row
from clicktide.settings import Settings

_pack = msgspec.msgpack.encode
# What stands before a text in msgpack, by its length in bytes.
_HEADS = [b"\xda" + n.to_bytes(2, "big") for n in range(2048)]

# Two rounds settle every honest case (the second leaves out what the first named); more only while others apply
# the very same events at the same time, or where Redis has to be told who is erased.
_MAX_ROUNDS = 7


Tombstones = Callable[[int], Sequence[str]]  # shard -> its erased users; raises StoreUnavailable


class Applied(NamedTuple):
    """What became of a slice's rows, by position; all that are not named are applied now.

    `duplicates` carry the id and content of another record that is applied, `conflicts` its id with other content;
    `failed` are those whose shard could not be asked, with the error. `replays` were applied by an earlier run of
    the very same record. `erased` are those of erased users, dropped.
    """

    duplicates: frozenset[int]
    conflicts: frozenset[int]
    replays: frozenset[int]
    failed: Mapping[int, StoreError]
    erased: frozenset[int] = frozenset()


class RedisStore:
    """Claims and their effects in Redis. One instance a process; not for several threads."""

    def __init__(
        self,
        settings: Settings,
        client: redis.Redis | None = None,
        now_s: int = 0,
        tombstones: Tombstones | None = None,
    ) -> None:
        """`now_s` fixes the time for tests; 0 takes Redis's own, the one clock all workers share. `tombstones` answers who of
        a shard is erased, for a Redis that has lost it; without it such a Redis takes everybody's events."""
        self._client = client or connect(settings)
        self._namespace = settings.text("redis.namespace")
        window = whole_seconds(settings.number("claims.window_h"))
        self._clock = (now_s, window, settings.integer("claims.buckets"))
        self._length = settings.integer("timeline.length")
        self._timeline_ttl = whole_seconds(settings.number("timeline.ttl_h"))
        self._late_after_ms = int(settings.number("events.late_after_h") * 3_600_000)
        self._ttls = {
            "s": whole_seconds(settings.number("buckets.second_ttl_h")),
            "m": whole_seconds(settings.number("buckets.minute_ttl_h")),
            "h": whole_seconds(settings.number("buckets.hour_ttl_h")),
            "d": whole_seconds(settings.number("buckets.day_ttl_h")),
            "a": 0,
        }
        self._apply = Script(self._client, "apply.lua")
        self._tombstones = tombstones

    def apply(self, rows: Sequence[Row]) -> Applied:
        """Claim each row's id for its own record and bring its effects into Redis, in one step, once.

        Raises `StoreUnavailable` (or `StoreRefused`) when that holds for all rows; a cluster's node that is away is
        named in `failed` (`PartAway`) for the rows of its shards.
        """
        waiting = _by_shard(rows)
        found: tuple[set[int], set[int], set[int]] = (set(), set(), set())  # by verdict
        erased: set[int] = set()
        failed: dict[int, StoreError] = {}
        for _ in range(_MAX_ROUNDS):
            answers = self._apply.run(
                {self._prefix(shard): self._arguments([rows[i] for i in at]) for shard, at in waiting.items()}
            )
            again: dict[int, list[int]] = {}
            for (shard, at), answer in zip(waiting.items(), answers, strict=True):
                if isinstance(answer, StoreError):
                    failed.update(dict.fromkeys(at, answer))
                elif answer and answer[0] == b"load":
                    failure = self._tell_erased(shard)
                    failed.update(dict.fromkeys(at, failure) if failure else {})
                    again.update({} if failure else {shard: at})
                elif answer and answer[0] == b"erased":
                    users = {user.decode() for user in answer[1:]}
                    erased.update(i for i in at if rows[i][USER_ID] in users)
                    if left := [i for i in at if i not in erased]:
                        again[shard] = left
                elif answer:
                    verdicts = {int(p): int(v) for p, v in zip(answer[::2], answer[1::2], strict=True)}
                    for position, verdict in verdicts.items():
                        found[verdict].add(at[position])
                    if left := [i for n, i in enumerate(at) if n not in verdicts]:
                        again[shard] = left
            waiting = again
            if not waiting:
                break
        else:
            error = StoreUnavailable(STORE, "the same events are being applied elsewhere")
            failed.update({i: error for at in waiting.values() for i in at})
        # A node of a cluster is not the store, even where a slice's shards are all of them its own.
        if rows and len(failed) == len(rows) and not any(isinstance(e, PartAway) for e in failed.values()):
            raise next(iter(failed.values()))
        replays, duplicates, conflicts = found
        return Applied(
            frozenset(duplicates), frozenset(conflicts), frozenset(replays), failed, frozenset(erased)
        )

    def _tell_erased(self, shard: int) -> StoreError | None:
        """Tell Redis who of the shard is erased; the error where that cannot be known now."""
        assert self._tombstones is not None
        try:
            tell(self._client, self._namespace, shard, self._tombstones(shard))
        except StoreError as e:
            # Not Redis is away, and not the event is at fault: it waits, without an attempt charged.
            return PartAway(STORE, f"it has lost who is erased, and {e}")
        return None

    def ping(self) -> None:
        """Raises `StoreUnavailable` when Redis does not answer."""
        with errors_named():
            self._client.ping()

    def _prefix(self, shard: int) -> str:
        return keys.shard_prefix(self._namespace, shard)

    def _arguments(self, rows: list[Row]) -> Arguments:
        found = aggregate.effects(rows, self._late_after_ms)
        effects = _pack(
            [
                self._counts(found),
                [(f"t:{user}", _scored(line)) for user, line in found.timelines.items()],
                self._length,
                self._timeline_ttl,
                [*self._seen("v", found.visitors), *self._seen("y", found.payers)],
            ]
        )
        return (*self._clock, claims.packed(rows), effects, int(self._tombstones is not None))

    def _counts(self, found: Effects) -> list[tuple[str, int, list[str]]]:
        out = []
        for granularity, starts in aggregate.buckets(found).items():
            ttl = self._ttls[granularity]
            for start, counts in starts.items():
                # As text: Lua's numbers are doubles, and money must not be rounded.
                increments = [text for name, n in counts.items() for text in (name, str(n))]
                out.append((f"b:{granularity}:{start}" if ttl else "b:a", ttl, increments))
        return out

    def _seen(
        self, key: str, by_hour: Mapping[int, set[str]]
    ) -> list[tuple[str, int, str, int, str, list[str]]]:
        hour_ttl, day_ttl = self._ttls["h"], self._ttls["d"]
        return [
            (f"{key}:h:{hour}", hour_ttl, f"{key}:d:{hour - hour % 86400}", day_ttl, f"{key}:a", list(users))
            for hour, users in by_hour.items()
        ]


def _scored(line: list[Any]) -> list[Any]:
    """Scores and members, the members as the texts that they are: the script takes no bytes, and to decode them just to have
    them encoded again costs more."""
    out = [*line]
    out[1::2] = [
        msgspec.Raw((_HEADS[n] if (n := len(member)) < 2048 else b"\xdb" + n.to_bytes(4, "big")) + member)
        for member in line[1::2]
    ]
    return out


def _by_shard(rows: Sequence[Row]) -> dict[int, list[int]]:
    by_shard: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        by_shard.setdefault(row[SHARD], []).append(i)
    return by_shard
