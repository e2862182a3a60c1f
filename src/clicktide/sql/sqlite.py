"""The writer's statements in SQLite's dialect, on a raw DBAPI cursor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from clicktide.orders import Order
from clicktide.row import EVENT_ID, SHARD, Row
from clicktide.sql.schema import EVENT_COLUMNS, ORDER_COLUMNS, TRANSITIONS

_IDS_A_QUERY: Final = 500  # SQLite before 3.32 takes 999 parameters
Stored = dict[tuple[int, str], tuple[str, int]]


def _marks(n: int) -> str:
    return ",".join("?" * n)


def _orders_upsert() -> str:
    sets = ["user_id=min(user_id,excluded.user_id)"]
    for s in TRANSITIONS:
        wins = (
            f"excluded.{s}_at IS NOT NULL AND ({s}_at IS NULL"
            f" OR (excluded.{s}_at,excluded.{s}_event)<({s}_at,{s}_event))"
        )
        sets += [
            f"{s}_{part}=CASE WHEN {wins} THEN excluded.{s}_{part} ELSE {s}_{part} END"
            for part in ("amount", "event", "at")
        ]
    return (
        f"INSERT INTO orders ({','.join(ORDER_COLUMNS)}) VALUES ({_marks(len(ORDER_COLUMNS))})"
        f" ON CONFLICT (shard,order_id) DO UPDATE SET {','.join(sets)}"
    )


class SqliteStatements:
    """Statements of one write; each method takes the cursor of the transaction."""

    _insert: Final = (
        f"INSERT INTO events ({','.join(EVENT_COLUMNS)}) VALUES ({_marks(len(EVENT_COLUMNS))})"
        " ON CONFLICT (shard,event_id) DO NOTHING"
    )
    _upsert: Final = _orders_upsert()

    def begin(self, cursor: Any) -> None:
        """Start the transaction as its writer: a later upgrade from reader would fail without waiting."""
        cursor.execute("BEGIN IMMEDIATE")

    def commit(self, cursor: Any) -> None:
        cursor.execute("COMMIT")

    def version(self, cursor: Any, *, exclusive: bool = False) -> int | None:  # noqa: ARG002 - the writer is alone
        """The placement's version, None when there is none yet; locked until the end of the transaction."""
        found = cursor.execute("SELECT version FROM placement WHERE id=1").fetchone()
        return None if found is None else int(found[0])

    def insert_events(self, cursor: Any, rows: Sequence[Row]) -> int:
        """Insert the rows whose (shard, event_id) is not there; answers how many were inserted."""
        return int(cursor.executemany(self._insert, rows).rowcount)

    def stored(self, cursor: Any, rows: Sequence[Row]) -> Stored:
        """(shard, event_id) -> (fingerprint, occurred_at) of those of `rows` that are stored."""
        found: Stored = {}
        for shard, ids in ids_by_shard(rows).items():
            for i in range(0, len(ids), _IDS_A_QUERY):
                part = ids[i : i + _IDS_A_QUERY]
                cursor.execute(
                    "SELECT event_id,fingerprint,occurred_at FROM events"
                    f" WHERE shard=? AND event_id IN ({_marks(len(part))})",  # noqa: S608 - only question marks
                    (shard, *part),
                )
                found.update({(shard, e): (f, at) for e, f, at in cursor.fetchall()})
        return found

    def upsert_orders(self, cursor: Any, orders: Iterable[Order]) -> None:
        """Join the orders into what is stored of them."""
        cursor.executemany(self._upsert, [order_values(o) for o in orders])


def ids_by_shard(rows: Sequence[Row]) -> dict[int, list[str]]:
    """The rows' event ids, by shard."""
    found: dict[int, list[str]] = {}
    for row in rows:
        found.setdefault(row[SHARD], []).append(row[EVENT_ID])
    return found


def order_values(order: Order) -> tuple[Any, ...]:
    """An order in the order of ORDER_COLUMNS."""
    none = (None, None, None)
    return (
        order.shard,
        order.order_id,
        order.user_id,
        *(order.ordered or none),
        *(order.paid or none),
        *(order.refunded or none),
    )
