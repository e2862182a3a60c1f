"""Where a shard is: its home by `shards.dsn_index`, unless a DSN's shard_map says that it has moved.

A DSN's map is authority only over what that DSN itself holds, so a DSN that is away hides nothing but its own
shards. Writers read the placement's version under a shared lock in the transaction of the write.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from clicktide.shards import dsn_index


class Entry(NamedTuple):
    """What a DSN knows of a shard: `active`, `moving` (to dsn), `incoming` (from dsn) or `moved` (to dsn)."""

    state: str
    dsn: int


Map = dict[int, Entry]


class Placement:
    """What is known of all DSNs' maps. Reading is free of locks: a map is replaced, never changed."""

    def __init__(self, homes: int) -> None:
        self.homes = (
            homes  # DSNs there were when the shards were laid out; those added since have no home shards
        )
        self._maps: dict[int, tuple[int, Map]] = {}

    def learn(self, dsn: int, version: int, found: Map) -> None:
        """`dsn`'s map as of `version`."""
        self._maps[dsn] = (version, found)

    def version(self, dsn: int) -> int | None:
        """The version of `dsn`'s map that is known, None when it was never read."""
        known = self._maps.get(dsn)
        return None if known is None else known[0]

    def entry(self, dsn: int, shard: int) -> Entry | None:
        known = self._maps.get(dsn)
        return None if known is None else known[1].get(shard)

    def owner(self, shard: int) -> int:
        """The DSN that holds `shard`, as far as is known."""
        dsn = dsn_index(shard, self.homes)
        for _ in range(len(self._maps)):
            entry = self.entry(dsn, shard)
            if entry is None or entry.state not in ("moved", "incoming"):
                break
            dsn = entry.dsn
        return dsn

    def next(self, dsn: int, shard: int) -> int:
        """Where `dsn`, which does not hold `shard`, sends on to.

        Going on from each DSN as it answers always arrives; `owner`, by maps of different age, may go round in a circle.
        """
        entry = self.entry(dsn, shard)
        return dsn_index(shard, self.homes) if entry is None else entry.dsn

    def accepts(self, dsn: int, shard: int, *, copy: bool) -> bool:
        """Whether `dsn` may be written for `shard`; `copy` when the write is the second one of a move."""
        entry = self.entry(dsn, shard)
        if entry is None:
            return dsn_index(shard, self.homes) == dsn
        return entry.state in ("active", "moving") or (copy and entry.state == "incoming")

    def targets(self, dsn: int, shards: Iterable[int]) -> dict[int, set[int]]:
        """DSN -> those of `shards` that are being moved there from `dsn`."""
        found: dict[int, set[int]] = {}
        for shard in shards:
            entry = self.entry(dsn, shard)
            if entry is not None and entry.state == "moving":
                found.setdefault(entry.dsn, set()).add(shard)
        return found
