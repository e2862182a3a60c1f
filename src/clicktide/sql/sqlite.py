"""The writer's statements in SQLite's dialect, on a raw DBAPI cursor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from clicktide.orders import Order
from clicktide.row import Row
from clicktide.sql.schema import EVENT_COLUMNS, ORDER_COLUMNS, TRANSITIONS
from clicktide.sql.statements import Statements, by_key, order_values


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


class SqliteStatements(Statements):
    """See Statements."""

    mark = "?"
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
        found = cursor.execute("SELECT version FROM placement WHERE id=1").fetchone()
        return None if found is None else int(found[0])

    def insert_events(self, cursor: Any, rows: Sequence[Row]) -> int:
        return int(cursor.executemany(self._insert, sorted(rows, key=by_key)).rowcount)

    def upsert_orders(self, cursor: Any, orders: Iterable[Order]) -> None:
        cursor.executemany(self._upsert, [order_values(o) for o in orders])
