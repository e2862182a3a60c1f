"""Tombstones for a Redis that has lost them: who of a shard is erased, as SQL says.

Asked once in the life of a Redis' data, so SQL's client is loaded then and not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clicktide.redisstore.store import Tombstones
from clicktide.settings import Settings

if TYPE_CHECKING:
    from clicktide.sql import SqlStore


def tombstones_of(settings: Settings) -> Tombstones | None:
    """A function from a shard to its erased users, which raises `StoreUnavailable`; None where there is no SQL."""
    if not settings.text("sql.dsns").strip():
        return None
    opened: list[SqlStore] = []

    def ask(shard: int) -> list[str]:
        from clicktide.sql import SqlStore

        if not opened:
            opened.append(SqlStore(settings))
        return opened[0].erased_users(shard)

    return ask
