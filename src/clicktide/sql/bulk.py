"""Many rows for one prepared insert in one packet: MariaDB's COM_STMT_BULK_EXECUTE, on top of PyMySQL.

Promises: what is stored, the errors and the count of new rows are those of the multi-row statement of `mysql`, at two thirds of the
server's work, since it parses no text (docs/decisions/0005-sql.md). `BulkConnection.bulk` says whether the server offers it; MySQL does
not, nor does a proxy that has not heard of it.

Sources: MariaDB's protocol, "Connection" (extended capabilities stand in the filler of both greetings, when bit 0 of the
capabilities is not set), "COM_STMT_PREPARE", "COM_STMT_BULK_EXECUTE".
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

from pymysql.connections import Connection, MysqlPacket

from clicktide.row import EVENT_ID, OCCURRED_AT, SHARD, TYPE, TYPES, USER_ID, Row
from clicktide.sql.body import body_of

_CLIENT_MYSQL: Final = 1
_BULK: Final = 1 << 2  # MARIADB_CLIENT_STMT_BULK_OPERATIONS, bit 34 of all
_PREPARE, _BULK_EXECUTE = 0x16, 0xFA
_SEND_TYPES: Final = 128
_SHORT, _LONG, _TEXT = 2, 8, 253  # MYSQL_TYPE_SHORT, _LONGLONG, _VAR_STRING
# Of schema.STORED_COLUMNS: shard, event_id, user_id, type, occurred_at, body; each with a zero: signed.
TYPES_OF_EVENTS: Final = bytes((_SHORT, 0, _TEXT, 0, _TEXT, 0, _TEXT, 0, _LONG, 0, _TEXT, 0))
# After the version's NUL: thread, salt, filler, low capabilities, charset, status, high capabilities, length of the salt, six zeros.
_EXTENDED_AT: Final = 4 + 8 + 1 + 2 + 1 + 2 + 2 + 1 + 6
# In the client's: capabilities, largest packet, charset, and 19 of 23 zeros.
_ASKED_AT: Final = 4 + 4 + 1 + 19


class BulkConnection(Connection):  # type: ignore[misc]  # PyMySQL has no types
    """A connection that may send rows in bulk. Everything else is PyMySQL's own."""

    bulk = False  # whether the server takes it
    _greeting: bytes | None = None
    _asking = False

    def execute_bulk(self, sql: str, types: bytes, rows: bytes) -> int:
        """Run the insert `sql` for each of the encoded `rows`; answers how many rows it affected, as a statement would."""
        self._execute_command(
            _BULK_EXECUTE, struct.pack("<IH", self._prepared(sql), _SEND_TYPES) + types + rows
        )
        return int(self._read_query_result())

    def _prepared(self, sql: str) -> int:
        """The statement's number; prepared once a connection."""
        known = self._statements
        if sql not in known:
            self._execute_command(_PREPARE, sql)
            number, columns, parameters = struct.unpack_from("<xIHH", self._read_packet().get_all_data())
            for count in (parameters, columns):
                # Their descriptions, and the mark behind them.
                for _ in range(count + 1 if count else 0):
                    self._read_packet()
            known[sql] = number
        return known[sql]

    def connect(self, sock: Any = None) -> None:
        self._greeting, self.bulk = None, False
        self._statements: dict[str, int] = {}  # by their text; a new session knows none
        super().connect(sock)

    def _get_server_information(self) -> None:
        super()._get_server_information()
        greeting = self._greeting or b""
        at = greeting.find(b"\0", 1) + 1 + _EXTENDED_AT
        offered = int.from_bytes(greeting[at : at + 4], "little")
        self.bulk = not self.server_capabilities & _CLIENT_MYSQL and bool(offered & _BULK)

    def _request_authentication(self) -> None:
        if self.bulk:
            self.client_flag &= ~_CLIENT_MYSQL
            self._asking = True
        try:
            super()._request_authentication()
        finally:
            self._asking = False

    def _read_packet(self, packet_type: type[MysqlPacket] = MysqlPacket) -> MysqlPacket:
        packet = super()._read_packet(packet_type)
        if self._greeting is None:
            self._greeting = packet.get_all_data()
        return packet

    def write_packet(self, payload: bytes) -> None:
        if (
            self._asking
            and len(payload) >= _ASKED_AT + 4
            and not any(payload[_ASKED_AT - 19 : _ASKED_AT + 4])
        ):
            payload = payload[:_ASKED_AT] + struct.pack("<I", _BULK) + payload[_ASKED_AT + 4 :]
        super().write_packet(payload)


def _prefix(size: int) -> bytes:
    """What stands before a value of so many bytes: that there is one, and its length."""
    if size < 251:
        return _PREFIXES[size]
    return (
        b"\0\xfc" + size.to_bytes(2, "little") if size < 1 << 16 else b"\0\xfd" + size.to_bytes(3, "little")
    )


def _text(value: str) -> bytes:
    raw = value.encode()
    return _prefix(len(raw)) + raw


_PREFIXES: Final = [bytes((0, size)) for size in range(251)]
_KINDS: Final = {kind: _text(kind) for kind in TYPES}


def encoded(rows: Sequence[Row]) -> bytes | None:
    """The rows as the server takes them for `TYPES_OF_EVENTS`; None where a value is none of its column's kind."""
    try:
        return _encoded(rows)
    except (AttributeError, TypeError, ValueError, OverflowError):
        return None


def _encoded(rows: Sequence[Row]) -> bytes:
    parts: list[bytes] = []
    shards: dict[int, bytes] = {}
    for row in rows:
        shard = row[SHARD]
        if (number := shards.get(shard)) is None:
            number = shards[shard] = b"\0" + shard.to_bytes(2, "little", signed=True)
        event_id, user_id, body = row[EVENT_ID].encode(), row[USER_ID].encode(), body_of(row)
        parts += (
            number,
            _prefix(len(event_id)),
            event_id,
            _prefix(len(user_id)),
            user_id,
            _KINDS.get(row[TYPE]) or _text(row[TYPE]),
            b"\0",
            row[OCCURRED_AT].to_bytes(8, "little", signed=True),
            _prefix(len(body)),
            body,
        )
    return b"".join(parts)
