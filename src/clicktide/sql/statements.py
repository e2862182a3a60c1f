"""What both dialects' writers share; each method takes the DBAPI cursor of the transaction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any, ClassVar, NamedTuple

from clicktide.orders import TRANSITION_OF, Order
from clicktide.row import (
    EVENT_ID,
    FINGERPRINT,
    OCCURRED_AT,
    OFFSET,
    ORDER_ID,
    PARTITION,
    SHARD,
    TOPIC_ID,
    Row,
)
from clicktide.sql.body import row_of
from clicktide.sql.schema import ORDER_COLUMNS, STORED_COLUMNS


class Found(NamedTuple):
    """What tells a stored row from another one with its id."""

    fingerprint: str
    occurred_at: int
    topic_id: str
    partition: int
    offset: int


Stored = dict[tuple[int, str], Found]
found_of = itemgetter(FINGERPRINT, OCCURRED_AT, TOPIC_ID, PARTITION, OFFSET)
_IDS_A_QUERY = 500  # SQLite before 3.32 takes 999 parameters


class Statements(ABC):
    """The statements of a write. No method commits, but `commit`."""

    mark: ClassVar[str]  # the driver's place for a parameter
    or_kept: ClassVar[str]  # an INSERT with this leaves what is there under the same id
    share: ClassVar[str] = ""  # makes a SELECT lock its rows against change

    @abstractmethod
    def begin(self, cursor: Any) -> None:
        """Start the transaction."""

    @abstractmethod
    def commit(self, cursor: Any) -> None:
        """Make it last."""

    @abstractmethod
    def version(self, cursor: Any, *, exclusive: bool = False) -> int | None:
        """The placement's version, None when there is none yet; locked until the end of the transaction."""

    @abstractmethod
    def insert_events(self, cursor: Any, rows: Sequence[Row]) -> int:
        """Insert the rows whose (shard, event_id) is not there; answers how many were inserted."""

    @abstractmethod
    def upsert_orders(self, cursor: Any, orders: Iterable[Order]) -> None:
        """Join the orders into what is stored of them."""

    def stored(self, cursor: Any, rows: Sequence[Row]) -> Stored:
        """(shard, event_id) -> what is stored under it, of those of `rows` that are there."""
        by_shard: dict[int, list[str]] = {}
        for row in rows:
            by_shard.setdefault(row[SHARD], []).append(row[EVENT_ID])
        found: Stored = {}
        for shard, ids in by_shard.items():
            for part in parts(ids):
                cursor.execute(
                    f"SELECT {','.join(STORED_COLUMNS)} FROM events"
                    f" WHERE shard={self.mark} AND event_id IN ({self.marks(len(part))})",
                    (shard, *part),
                )
                for stored in cursor.fetchall():
                    row = row_of(*stored)
                    found[shard, row[EVENT_ID]] = Found(*found_of(row))
        return found

    def erase_user(self, cursor: Any, shard: int, user_id: str) -> dict[str, int]:
        """Delete the user's orders and events of the shard; answers how many."""
        mine = f"shard={self.mark} AND user_id={self.mark}"
        cursor.execute(
            f"SELECT {','.join(STORED_COLUMNS)} FROM events"
            f" WHERE {mine} AND type IN ({self.marks(len(TRANSITION_OF))})",
            (shard, user_id, *TRANSITION_OF),
        )
        ids = {str(row_of(*stored)[ORDER_ID]) for stored in cursor.fetchall()}
        orders = 0
        for part in parts(sorted(ids)):
            cursor.execute(
                f"DELETE FROM orders WHERE {mine} AND order_id IN ({self.marks(len(part))})",
                (shard, user_id, *part),
            )
            orders += cursor.rowcount
        cursor.execute(f"DELETE FROM events WHERE {mine}", (shard, user_id))
        return {"events": cursor.rowcount, "orders": orders}

    def entomb(self, cursor: Any, shard: int, user_id: str, at_ms: int, lifted: int) -> None:
        """Say that the user is erased, or no longer, after every write under way and before every later one."""
        self.version(cursor, exclusive=True)
        cursor.execute("UPDATE placement SET version=version+1 WHERE id=1")
        cursor.execute(
            f"DELETE FROM erased WHERE shard={self.mark} AND user_id={self.mark}", (shard, user_id)
        )
        cursor.execute(
            f"INSERT INTO erased (shard,user_id,erased_at,lifted,version) SELECT {self.marks(4)},version"
            " FROM placement WHERE id=1",
            (shard, user_id, at_ms, lifted),
        )

    def tombstones(self, cursor: Any, shard: int) -> list[tuple[str, int, int]]:
        """(user, when, lifted) of all that was ever said of the shard's users; none is added before the transaction ends."""
        self.version(cursor)
        cursor.execute(f"SELECT user_id,erased_at,lifted FROM erased WHERE shard={self.mark}", (shard,))
        return [(str(user), int(at), int(lifted)) for user, at, lifted in cursor.fetchall()]

    def introduce(self, cursor: Any, dsn: int, homes: int, shards: int) -> None:
        """Write down which DSN this is; what another has written meanwhile stays, and is for the caller to read."""
        cursor.execute(
            f"INSERT INTO placement (id,dsn,homes,shards,version) VALUES (1,{self.marks(3)},1) {self.or_kept}",
            (dsn, homes, shards),
        )

    def set_entry(self, cursor: Any, shard: int, state: str, dsn: int, now_ms: int) -> None:
        """Change what this DSN says of a shard, after every write under way and before every later one."""
        self.version(cursor, exclusive=True)
        cursor.execute(f"DELETE FROM shard_map WHERE shard={self.mark}", (shard,))
        cursor.execute(
            f"INSERT INTO shard_map (shard,state,dsn,changed_at) VALUES ({self.marks(4)})",
            (shard, state, dsn, now_ms),
        )
        cursor.execute("UPDATE placement SET version=version+1 WHERE id=1")

    def page(
        self, cursor: Any, table: str, key: str, shard: int, after: str, limit: int
    ) -> list[tuple[Any, ...]]:
        """The shard's rows of `table` by `key`, past `after`, all columns as stored; no one changes them meanwhile."""
        columns = STORED_COLUMNS if table == "events" else ORDER_COLUMNS
        cursor.execute(
            f"SELECT {','.join(columns)} FROM {table} WHERE shard={self.mark} AND {key}>{self.mark}"
            f" ORDER BY {key} LIMIT {limit} {self.share}",
            (shard, after),
        )
        return [tuple(row) for row in cursor.fetchall()]

    def last_key(self, cursor: Any, table: str, key: str, shard: int) -> str:
        """The largest key of the shard's rows of `table`, empty when there are none."""
        cursor.execute(f"SELECT MAX({key}) FROM {table} WHERE shard={self.mark}", (shard,))
        return str(cursor.fetchone()[0] or "")

    def delete_some(self, cursor: Any, table: str, key: str, shard: int, limit: int) -> int:
        """Delete up to `limit` of the shard's rows of `table`; answers how many."""
        cursor.execute(f"SELECT {key} FROM {table} WHERE shard={self.mark} LIMIT {limit}", (shard,))
        ids = [one for (one,) in cursor.fetchall()]
        for part in parts(ids):
            cursor.execute(
                f"DELETE FROM {table} WHERE shard={self.mark} AND {key} IN ({self.marks(len(part))})",
                (shard, *part),
            )
        return len(ids)

    def marks(self, n: int) -> str:
        """`n` places for parameters."""
        return ",".join([self.mark] * n)


def in_key_order(rows: Sequence[Row]) -> list[Row]:
    """By (shard, event id): rows written in the order of the primary key touch fewer pages."""
    # Two sorts that each compare one plain value take half as long as one that compares pairs.
    by_id = sorted(rows, key=itemgetter(EVENT_ID))
    by_id.sort(key=itemgetter(SHARD))
    return by_id


def parts(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    """`ids` in pieces that one statement may hold."""
    return (ids[i : i + _IDS_A_QUERY] for i in range(0, len(ids), _IDS_A_QUERY))


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
