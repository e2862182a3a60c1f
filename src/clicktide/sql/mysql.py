"""The writer's statements in the dialect of MySQL and MariaDB, on a raw PyMySQL cursor.

Events go out in bulk (clicktide.sql.bulk) where the server takes that, else as text; all else is text, whose
VALUES are JSON: what orjson writes for text, whole numbers and null is a MySQL literal too, as long as
the session has neither ANSI_QUOTES nor NO_BACKSLASH_ESCAPES (clicktide.sql.engine pins that). The two escapes
that MySQL reads otherwise (\\u00XX and \\f) go through the driver. docs/decisions/0005-sql.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import orjson

from clicktide.orders import Order
from clicktide.row import Row
from clicktide.sql.body import body_of, head_of
from clicktide.sql.bulk import TYPES_OF_EVENTS, BulkConnection, encoded
from clicktide.sql.schema import ORDER_COLUMNS, STORED_COLUMNS, TRANSITIONS
from clicktide.sql.statements import Statements, in_key_order, order_values

# Longer statements are no faster; a server whose max_allowed_packet is smaller gets still shorter ones.
STATEMENT_BYTES: Final = 2 << 20
_SEPARATOR: Final = b"),("
_BETWEEN: Final = b"\0"  # JSON has it only as an escape


def literals(connection: Any, rows: Sequence[Row]) -> list[bytes]:
    """Each row as the text between the brackets of VALUES, in UTF-8."""
    dumps = orjson.dumps
    texts = [dumps(row)[1:-1] for row in rows]
    if b"\\u" in (joined := b"".join(texts)) or b"\\f" in joined:
        return [
            _escaped(connection, row) if b"\\u" in text or b"\\f" in text else text
            for row, text in zip(rows, texts, strict=True)
        ]
    return texts


def quotable(texts: Sequence[bytes]) -> list[bytes]:
    """JSON texts as they may stand between single quotes; their own control characters are escaped already."""
    # All at once: most rows have backslashes (the quotes of a text), and a call each costs more than the work.
    whole = _BETWEEN.join(texts).replace(b"\\", b"\\\\").replace(b"'", b"\\'")
    return whole.split(_BETWEEN) if texts else []


def _escaped(connection: Any, row: Sequence[Any]) -> bytes:
    return ",".join(connection.escape(value) if value is not None else "NULL" for value in row).encode()


def statements(head: bytes, texts: Sequence[bytes], tail: bytes, most: int) -> Iterator[bytes]:
    """Multi-row statements of `texts`, none longer than `most` bytes unless one row alone is."""
    start, size = 0, 0
    for i, text in enumerate(texts):
        if size + len(text) > most and i > start:
            yield b"".join((head, _SEPARATOR.join(texts[start:i]), tail))
            start, size = i, 0
        size += len(text) + len(_SEPARATOR)
    if texts:
        yield b"".join((head, _SEPARATOR.join(texts[start:]), tail))


def _orders_tail() -> bytes:
    sets = ["user_id=LEAST(user_id,VALUES(user_id))"]
    for s in TRANSITIONS:
        wins = (
            f"VALUES({s}_at) IS NOT NULL AND ({s}_at IS NULL"
            f" OR (VALUES({s}_at),VALUES({s}_event))<({s}_at,{s}_event))"
        )
        # MySQL assigns from left to right and later assignments see the earlier ones: so the amount goes first,
        # then the event, whose condition needs the old time, then the time, whose condition needs no event.
        sets += [f"{s}_amount=IF({wins},VALUES({s}_amount),{s}_amount)"]
        sets += [f"{s}_event=IF({wins},VALUES({s}_event),{s}_event)"]
        sets += [f"{s}_at=COALESCE(LEAST({s}_at,VALUES({s}_at)),{s}_at,VALUES({s}_at))"]
    return f") ON DUPLICATE KEY UPDATE {','.join(sets)}".encode()


# Not INSERT IGNORE, which would cut what is too long and store it.
_KEPT: Final = "ON DUPLICATE KEY UPDATE event_id=event_id"
_EVENTS: Final = f"INSERT INTO events ({','.join(STORED_COLUMNS)}) VALUES ("
_BULK_INSERT: Final = f"{_EVENTS}{','.join('?' * len(STORED_COLUMNS))}) {_KEPT}"


class MysqlStatements(Statements):
    """See Statements."""

    mark = "%s"
    or_kept = "ON DUPLICATE KEY UPDATE id=id"
    share = "LOCK IN SHARE MODE"
    _events_head: Final = _EVENTS.encode()
    _events_tail: Final = f") {_KEPT}".encode()
    _orders_head: Final = f"INSERT INTO orders ({','.join(ORDER_COLUMNS)}) VALUES (".encode()
    _orders_tail: Final = _orders_tail()

    def __init__(self, statement_bytes: int = STATEMENT_BYTES, *, bulk: bool = True) -> None:
        self.statement_bytes, self._bulk = statement_bytes, bulk

    def connected(self, connection: Any, _record: Any) -> None:
        """Ask a new connection what the server takes."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT @@max_allowed_packet")
            self.statement_bytes = min(self.statement_bytes, int(cursor.fetchone()[0]) * 3 // 4)

    def begin(self, cursor: Any) -> None:
        """Nothing: the driver's connections are in a transaction from their first statement on."""

    def commit(self, cursor: Any) -> None:
        cursor.connection.commit()

    def version(self, cursor: Any, *, exclusive: bool = False) -> int | None:
        lock = "FOR UPDATE" if exclusive else self.share
        cursor.execute(f"SELECT version FROM placement WHERE id=1 {lock}")
        found = cursor.fetchone()
        return None if found is None else int(found[0])

    def insert_events(self, cursor: Any, rows: Sequence[Row]) -> int:
        if not rows:  # of none a bulk would be refused
            return 0
        # One order of locking for all writers, so that two with common rows wait instead of deadlocking.
        ordered = in_key_order(rows)
        if self._bulk and cursor.connection.bulk and (packed := encoded(ordered)) is not None:
            return self._insert_bulk(cursor.connection, ordered, packed)
        return self._insert_text(cursor, ordered)

    def _insert_bulk(self, connection: BulkConnection, rows: Sequence[Row], packed: bytes) -> int:
        if len(packed) <= self.statement_bytes or len(rows) == 1:
            return connection.execute_bulk(_BULK_INSERT, TYPES_OF_EVENTS, packed)
        half = len(rows) // 2
        return sum(
            self._insert_bulk(connection, part, encoded(part) or b"") for part in (rows[:half], rows[half:])
        )

    def _insert_text(self, cursor: Any, ordered: Sequence[Row]) -> int:
        heads = literals(cursor.connection, [head_of(row) for row in ordered])
        bodies = quotable([body_of(row) for row in ordered])
        texts = [b"%b,'%b'" % both for both in zip(heads, bodies, strict=True)]
        return sum(
            cursor.execute(text)
            for text in statements(self._events_head, texts, self._events_tail, self.statement_bytes)
        )

    def upsert_orders(self, cursor: Any, orders: Iterable[Order]) -> None:
        texts = literals(cursor.connection, [list(order_values(o)) for o in orders])
        for text in statements(self._orders_head, texts, self._orders_tail, self.statement_bytes):
            cursor.execute(text)
