"""What SQL holds: the truth's events by id, the users' newest events, the orders, and sums of all rows.

One pass over the events of every DSN, in memory that grows with the truth, not with the store.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import NamedTuple

from bench.ledger.expected import AMOUNT, CATEGORY, CONTENT, GENDER, PROVINCE, TYPE, USER, Content, Expected
from bench.ledger.sums import Sums
from clicktide.orders import Order
from clicktide.settings import Settings
from clicktide.shards import shard_of
from clicktide.sql import SqlStore

_COLUMNS = ("event_id", "occurred_at", "received_at", "shard", *CONTENT)
_FIXED = 4  # of the columns above, before the content


class Row(NamedTuple):
    """A stored row of the truth's; `same`: its content is what the truth says (then it is not kept twice)."""

    occurred_at: int
    received_at: int
    content: Content


@dataclass(slots=True)
class UserEvents:
    """A user's newest events, and when the last one came in (ms)."""

    newest: list[tuple[int, str]] = field(default_factory=list)
    last_received: int = 0


@dataclass(slots=True)
class SqlSide:
    """All that the checks need of SQL. `total` rows in all, `others` of them not the truth's."""

    sums: Sums
    late_after_ms: int
    rows: dict[str, Row] = field(default_factory=dict)
    twice: list[str] = field(default_factory=list)
    misplaced: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    users: dict[str, UserEvents] = field(default_factory=dict)
    orders: dict[str, list[Order]] = field(default_factory=dict)
    total: int = 0

    @property
    def others(self) -> int:
        return self.total - len(self.rows) - len(self.twice)


def collect(expected: Expected, settings: Settings, sums: Sums) -> SqlSide:
    """Scan every DSN. Raises `StoreUnavailable` when one is away."""
    side = SqlSide(sums, int(settings.number("events.late_after_h") * 3_600_000))
    for fact in expected.facts.values():
        side.users.setdefault(fact.content[USER], UserEvents())
    store = SqlStore(settings)
    try:
        for i in range(len(store.dsns)):
            _scan_events(store, i, expected, settings, side)
        wanted = {fact.content[CONTENT.index("order_id")] for fact in expected.facts.values()}
        wanted.discard(None)
        for i in range(len(store.dsns)):
            for order in store.scan_orders(i):
                if order.order_id in wanted:
                    side.orders.setdefault(order.order_id, []).append(order)
    finally:
        store.close()
    keep = settings.integer("timeline.length")
    for user in side.users.values():
        user.newest = heapq.nlargest(keep, user.newest)
    return side


def _scan_events(store: SqlStore, dsn: int, expected: Expected, settings: Settings, side: SqlSide) -> None:
    late_after_ms = side.late_after_ms
    shards, keep = settings.integer("shards.count"), settings.integer("timeline.length")
    facts, rows, users, add = expected.facts, side.rows, side.users, side.sums.add
    for found in store.scan_events(dsn, _COLUMNS, page=10_000):
        side.total += 1
        event_id, occurred_at, received_at, shard = found[:_FIXED]
        content = found[_FIXED:]
        add(
            occurred_at,
            content[TYPE],
            content[GENDER],
            content[PROVINCE],
            content[CATEGORY],
            content[AMOUNT],
            late=received_at - occurred_at > late_after_ms,
        )
        user = users.get(content[USER])
        if user is not None:
            user.newest.append((occurred_at, event_id))
            user.last_received = max(user.last_received, received_at)
            if len(user.newest) > 8 * keep:
                user.newest = heapq.nlargest(keep, user.newest)
        fact = facts.get(event_id)
        if fact is None:
            if expected.is_of_a_run(event_id):
                side.extra.append(event_id)
        elif event_id in rows:
            side.twice.append(event_id)
        else:
            # The truth's tuple where both are equal: the memory holds one of them only.
            rows[event_id] = Row(
                occurred_at, received_at, fact.content if content == fact.content else content
            )
            if shard != _shard(content[USER], shards):
                side.misplaced.append(event_id)


_shards_seen: dict[tuple[str, int], int] = {}


def _shard(user_id: str, shards: int) -> int:
    """`shard_of`, remembered: murmur2 in Python costs more than all the rest of a row."""
    shard = _shards_seen.get((user_id, shards))
    if shard is None:
        if len(_shards_seen) > 500_000:
            _shards_seen.clear()
        shard = _shards_seen[user_id, shards] = shard_of(user_id, shards)
    return shard
