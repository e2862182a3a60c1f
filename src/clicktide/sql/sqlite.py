"""The writer's statements in SQLite's dialect, on a raw DBAPI cursor."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from clicktide.orders import Order
from clicktide.row import Row
from clicktide.sql.body import body_of, head_of
from clicktide.sql.schema import ORDER_COLUMNS, STORED_COLUMNS, TRANSITIONS
from clicktide.sql.statements import Statements, in_key_order, order_values


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


def when_free(work: Callable[[], object], timeout_s: float, clock: Callable[[], float]) -> None:
    """Do `work`, again and again while another has the file; raises what it raises at the end of the time."""
    deadline = clock() + timeout_s
    while True:
        last = clock() >= deadline
        try:
            work()
            return
        except sqlite3.OperationalError as e:
            if last or e.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
        time.sleep(random.uniform(0.001, 0.006))


class SqliteStatements(Statements):
    """See Statements."""

    mark = "?"
    or_kept = "ON CONFLICT (id) DO NOTHING"
    _insert: Final = (
        f"INSERT INTO events ({','.join(STORED_COLUMNS)}) VALUES ({_marks(len(STORED_COLUMNS))})"
        " ON CONFLICT (shard,event_id) DO NOTHING"
    )
    _upsert: Final = _orders_upsert()

    def __init__(self, timeout_s: float, clock: Callable[[], float]) -> None:
        self._timeout_s, self._clock = timeout_s, clock

    def begin(self, cursor: Any) -> None:
        """Start the transaction as its writer: a later upgrade from reader would fail without waiting."""
        # SQLite's own waiting sleeps longer the longer it waits, up to 100 ms, so that late comers go first and one
        # writer among busy ones may wait for ever. Here all who wait ask equally often.
        cursor.execute("PRAGMA busy_timeout=0")
        try:
            when_free(lambda: cursor.execute("BEGIN IMMEDIATE"), self._timeout_s, self._clock)
        finally:
            cursor.execute(f"PRAGMA busy_timeout={int(self._timeout_s * 1000)}")

    def commit(self, cursor: Any) -> None:
        cursor.execute("COMMIT")

    def version(self, cursor: Any, *, exclusive: bool = False) -> int | None:  # noqa: ARG002 - the writer is alone
        found = cursor.execute("SELECT version FROM placement WHERE id=1").fetchone()
        return None if found is None else int(found[0])

    def insert_events(self, cursor: Any, rows: Sequence[Row]) -> int:
        values = [(*head_of(row), body_of(row).decode()) for row in in_key_order(rows)]
        return int(cursor.executemany(self._insert, values).rowcount)

    def upsert_orders(self, cursor: Any, orders: Iterable[Order]) -> None:
        cursor.executemany(self._upsert, [order_values(o) for o in orders])
