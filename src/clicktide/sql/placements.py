"""Reads and keeps the DSNs' own account of which shards they hold.

`fence` is for writers: it takes the shared lock that a move waits for. `look` is for readers: a few seconds old is good
enough, because a move leaves the old copy in place for longer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy.engine import Connection

from clicktide.errors import SettingError
from clicktide.sql.dsn import Dsn
from clicktide.sql.placement import Entry, Placement

LOOK_S = 5.0
_NOBODY: tuple[int, frozenset[str]] = (0, frozenset())
_WHERE_AM_I = "SELECT dsn,homes,shards,version FROM placement WHERE id=1"
_ERASED = "SELECT user_id,lifted FROM erased WHERE version>"
_MAP = "SELECT shard,state,dsn FROM shard_map"


class Placements:
    """Keeps `placement` in step with what the DSNs say."""

    def __init__(
        self, dsns: Sequence[Dsn], placement: Placement, shards: int, clock: Callable[[], float]
    ) -> None:
        self._dsns, self._placement, self._shards, self._clock = dsns, placement, shards, clock
        self._looked: dict[int, float] = {}
        self._erased: dict[int, tuple[int, frozenset[str]]] = {}  # DSN -> as of which version, users

    def fence(self, dsn: Dsn, cursor: Any) -> None:
        """Lock the DSN's placement against a move until the end of the transaction, and know its map."""
        version = dsn.statements.version(cursor)
        if version is None:
            self.introduce(dsn, cursor)
        elif version != self._placement.version(dsn.index) or version != self._erased[dsn.index][0]:
            self._learn(dsn, lambda sql: _fetch(cursor, sql))

    def erased(self, dsn: Dsn) -> frozenset[str]:
        """The users that the DSN's account, as last read, calls erased; after `fence` nobody is missing."""
        return self._erased.get(dsn.index, _NOBODY)[1]

    def look(self, dsn: Dsn, connection: Connection, *, now: bool = False) -> None:
        """Know the DSN's map as it was at most LOOK_S ago, or as it is now."""
        time = self._clock()
        if now or time - self._looked.get(dsn.index, time - LOOK_S) >= LOOK_S:
            self._learn(dsn, lambda sql: [tuple(row) for row in connection.exec_driver_sql(sql)])
            self._looked[dsn.index] = time

    def introduce(self, dsn: Dsn, cursor: Any = None) -> None:
        """Write down which DSN this is, when nobody has yet; needs every other one to answer, for they may know."""
        if cursor is None:
            dsn.write(lambda own: self.fence(dsn, own))
            return
        known = [
            found[0][1]
            for other in self._dsns
            if other is not dsn
            and (found := other.read(lambda c: [tuple(r) for r in c.exec_driver_sql(_WHERE_AM_I)]))
        ]
        homes = max(known, default=len(self._dsns))
        dsn.statements.introduce(cursor, dsn.index, homes, self._shards)
        self._learn(dsn, lambda sql: _fetch(cursor, sql))

    def _learn(self, dsn: Dsn, query: Callable[[str], list[tuple[Any, ...]]]) -> None:
        found = query(_WHERE_AM_I)
        if not found:
            return
        index, homes, shards, version = found[0]
        if index != dsn.index:
            raise SettingError(
                f"setting sql.dsns: the DSN at place {dsn.index} was set up as number {index}; their order is fixed"
            )
        if shards != self._shards:
            raise SettingError(f"setting shards.count: expected {shards}, as {dsn.store} was set up with")
        self._placement.homes = homes
        self._learn_erased(dsn, version, query)
        self._placement.learn(dsn.index, version, {s: Entry(state, d) for s, state, d in query(_MAP)})

    def _learn_erased(self, dsn: Dsn, version: int, query: Callable[[str], list[tuple[Any, ...]]]) -> None:
        known, users = self._erased.get(dsn.index, _NOBODY)
        if changes := query(f"{_ERASED}{known}") if version != known else []:
            named = {str(user): bool(lifted) for user, lifted in changes}
            users = (users | named.keys()) - {user for user, lifted in named.items() if lifted}
        # Version and users in one step: another thread that read earlier may put its own there, older in both.
        self._erased[dsn.index] = (version, users)


def _fetch(cursor: Any, sql: str) -> list[tuple[Any, ...]]:
    cursor.execute(sql)
    return [tuple(row) for row in cursor.fetchall()]
