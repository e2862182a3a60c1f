"""Retention: deletes what happened long ago, shard by shard, in pages by primary key, while writing goes on.

Promises: each transaction looks at no more than a page of one shard; nothing younger than asked is touched; it may be stopped
anywhere and called again. What the stores have summed up stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, NamedTuple

from clicktide.errors import SettingError
from clicktide.settings import Settings
from clicktide.sql.dsn import Dsn
from clicktide.sql.schema import TRANSITIONS
from clicktide.sql.store import SqlStore

PAGE: Final = 1000
_HOUR_MS: Final = 3_600_000
# table -> (key, the condition that all of a row is older than the one parameter, how often that stands in it)
_TABLES: Final = {
    "orders": (
        "order_id",
        " AND ".join(f"({step}_at IS NULL OR {step}_at<{{mark}})" for step in TRANSITIONS),
        len(TRANSITIONS),
    ),
    "events": ("event_id", "occurred_at<{mark}", 1),
}

Report = Callable[[int, str, int, int], None]  # shard, table, rows looked at, rows found


class Pruned(NamedTuple):
    """How many rows were too old."""

    events: int
    orders: int


def least_age_ms(settings: Settings) -> int:
    """How old a row must be at least: while its record may still come again, its row says that it was there."""
    names = ("topics.retention_h", "events.late_after_h", "retry.deadline_h")
    hours = [settings.number(name) for name in names] + [2 * settings.number("claims.window_h")]
    return int(max(hours) * _HOUR_MS)


def cutoff_ms(settings: Settings, age_ms: int, now_ms: int) -> int:
    """Rows from before this (ms since the epoch) may go. Raises `SettingError` for an age that is too small."""
    least = least_age_ms(settings)
    if age_ms < least:
        raise SettingError(
            f"expected an age of at least {-(-least // (24 * _HOUR_MS))} days: so long a record may come again, and its row"
            " says that it was there"
        )
    return now_ms - age_ms


def prune(
    store: SqlStore, shards: Iterable[int], before_ms: int, report: Report, *, delete: bool = True
) -> Pruned:
    """Delete the events that occurred before, and the orders of which nothing happened since; or only count them.

    Raises `StoreUnavailable` when a DSN is away: the shards before it are done.
    """
    store.prepare()
    found = dict.fromkeys(_TABLES, 0)
    for shard in shards:
        dsn = store.dsns[store.dsn_of(shard)]
        for table in _TABLES:
            found[table] += _prune(dsn, shard, table, before_ms, report, delete=delete)
    return Pruned(found["events"], found["orders"])


def _prune(dsn: Dsn, shard: int, table: str, before_ms: int, report: Report, *, delete: bool) -> int:
    after: str | None = ""
    seen = found = 0
    while after is not None:
        looked, old, after = dsn.write(partial(_page, dsn, shard, table, before_ms, after, delete))
        seen, found = seen + looked, found + old
        report(shard, table, seen, found)
    return found


def _page(
    dsn: Dsn, shard: int, table: str, before_ms: int, after: str, delete: bool, cursor: Any
) -> tuple[int, int, str | None]:
    """(rows looked at, rows too old, where the next page begins) of the page after the key `after`."""
    mark = dsn.statements.mark
    key, old, times = _TABLES[table]
    cursor.execute(
        f"SELECT {key} FROM {table} WHERE shard={mark} AND {key}>{mark} ORDER BY {key} LIMIT {PAGE}",
        (shard, after),
    )
    keys = [str(one) for (one,) in cursor.fetchall()]
    if not keys:
        return 0, 0, None
    where = f"WHERE shard={mark} AND {key}>{mark} AND {key}<={mark} AND {old.format(mark=mark)}"
    verb = "DELETE" if delete else "SELECT COUNT(*)"
    cursor.execute(f"{verb} FROM {table} {where}", (shard, after, keys[-1], *[before_ms] * times))
    count = int(cursor.rowcount) if delete else int(cursor.fetchone()[0])
    return len(keys), count, keys[-1] if len(keys) == PAGE else None
