"""The readers' queries, on SQLAlchemy Core; both dialects, rows in the order of row.COLUMNS."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from clicktide.orders import Order, Transition, join
from clicktide.row import Row
from clicktide.sql.body import row_of
from clicktide.sql.schema import EVENT_COLUMNS, STORED_COLUMNS, TRANSITIONS, orders
from clicktide.sql.schema import stored_events as events

_ALL = [events.c[name] for name in STORED_COLUMNS]
_AT = {name: i for i, name in enumerate(EVENT_COLUMNS)}


class Cursor(NamedTuple):
    """A place in a user's events, newest first: the last event that was seen."""

    occurred_at: int
    event_id: str


class Counts(NamedTuple):
    """What is stored, in all DSNs."""

    events: int
    by_type: dict[str, int]
    orders: int


def events_of_user(
    connection: Connection,
    shard: int,
    user_id: str,
    types: Collection[str] | None,
    since: int | None,
    until: int | None,
    before: Cursor | None,
    limit: int,
) -> list[Row]:
    """Newest first by (occurred_at, event_id); since <= occurred_at < until, strictly before the cursor."""
    query = sa.select(*_ALL).where(events.c.shard == shard, events.c.user_id == user_id)
    if types is not None:
        query = query.where(events.c.type.in_(list(types)))
    if since is not None:
        query = query.where(events.c.occurred_at >= since)
    if until is not None:
        query = query.where(events.c.occurred_at < until)
    if before is not None:
        at, event_id = before
        # Both conditions, because the first is one that the index can use.
        query = query.where(
            events.c.occurred_at <= at, sa.or_(events.c.occurred_at < at, events.c.event_id < event_id)
        )
    query = query.order_by(events.c.occurred_at.desc(), events.c.event_id.desc()).limit(limit)
    return [row_of(*row) for row in connection.execute(query)]


def event(connection: Connection, shards: Sequence[int], event_id: str) -> Row | None:
    """The event, looked for in `shards` by primary key."""
    query = sa.select(*_ALL).where(events.c.shard.in_(shards), events.c.event_id == event_id)
    found = connection.execute(query).first()
    return None if found is None else row_of(*found)


def order(connection: Connection, shards: Sequence[int], order_id: str) -> Order | None:
    """The order, joined over all shards that know of it."""
    found: Order | None = None
    for row in connection.execute(
        sa.select(orders).where(orders.c.shard.in_(shards), orders.c.order_id == order_id)
    ).mappings():
        one = order_from(row)
        found = one if found is None else join(found, one)
    return found


def order_from(row: Any) -> Order:
    """An order out of a mapping of ORDER_COLUMNS."""
    steps = {
        step: Transition(row[f"{step}_at"], row[f"{step}_event"], row[f"{step}_amount"])
        for step in TRANSITIONS
        if row[f"{step}_at"] is not None
    }
    return Order(row["shard"], row["order_id"], row["user_id"], **steps)


def scan_events(
    connection: Connection, shard: int, columns: Sequence[str], page: int
) -> Iterator[list[tuple[Any, ...]]]:
    """The shard's events by event id, in pages; every page is a query of its own that starts after the last one."""
    wanted = [_AT[name] for name in columns]
    query = sa.select(*_ALL).where(events.c.shard == shard)
    last = ""
    while True:
        after = query.where(events.c.event_id > last) if last else query
        found = connection.execute(after.order_by(events.c.event_id).limit(page)).all()
        if found:
            yield [tuple([row[i] for i in wanted]) for row in (row_of(*stored) for stored in found)]
        if len(found) < page:
            return
        last = found[-1].event_id


def scan_orders(connection: Connection, shard: int, page: int) -> Iterator[list[Order]]:
    """The shard's orders by id, in pages."""
    query = sa.select(orders).where(orders.c.shard == shard)
    last = ""
    while True:
        after = query.where(orders.c.order_id > last) if last else query
        found = connection.execute(after.order_by(orders.c.order_id).limit(page)).mappings().all()
        if found:
            yield [order_from(row) for row in found]
        if len(found) < page:
            return
        last = found[-1]["order_id"]


def counts(connection: Connection, shards: Sequence[int]) -> Counts:
    """How much `shards` hold."""
    by_type = {
        str(kind): int(n)
        for kind, n in connection.execute(
            sa.select(events.c.type, sa.func.count())
            .where(events.c.shard.in_(shards))
            .group_by(events.c.type)
        )
    }
    n = connection.execute(
        sa.select(sa.func.count()).select_from(orders).where(orders.c.shard.in_(shards))
    ).scalar_one()
    return Counts(sum(by_type.values()), by_type, int(n))
