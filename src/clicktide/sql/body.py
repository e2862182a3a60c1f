"""The body: all of a row that no statement looks for, as one text column.

A literal that the server has to parse costs it 0.3 µs: six a row instead of 22 take a third off a write. Promises: a
row comes back just as it was given.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any, Final

import msgspec
import orjson

from clicktide.row import (
    EVENT_ID,
    EXTRA,
    FINGERPRINT,
    ITEM_ID,
    OCCURRED_AT,
    RECEIVED_AT,
    SHARD,
    TYPE,
    USER_ID,
    Row,
)

# A JSON array: received_at, item_id to channel, fingerprint to offset, and extra, which is JSON itself.
FIELDS: Final = (RECEIVED_AT, *range(ITEM_ID, EXTRA), *range(FINGERPRINT, FINGERPRINT + 4), EXTRA)
# Values are not looked at: one that a writer should not have let in must not stop a reader.
_decode: Callable[[str | bytes], tuple[Any, ...]] = msgspec.json.Decoder(
    tuple[(Any,) * (len(FIELDS) - 1) + (msgspec.Raw,)]  # type: ignore[misc]
).decode
_NULL: Final = b"null"
_fields_of = itemgetter(*FIELDS[:-1])
# The other columns of a row, in the order of schema.STORED_COLUMNS.
head_of: Final = itemgetter(SHARD, EVENT_ID, USER_ID, TYPE, OCCURRED_AT)


def body_of(row: Row) -> bytes:
    """The row's body. Raises `orjson.JSONEncodeError` for what is no JSON value."""
    extra = row[EXTRA]
    # The sum is a small object of its own; what `dumps` answers keeps its larger buffer, and a thousand of those
    # grow and shrink the heap with every slice, at three times the cost of all this.
    fields = orjson.dumps(_fields_of(row))[:-1]
    if extra is None:
        return fields + b",null]"
    if extra[:1] == "{":
        # As it is, not as text in text: every quote in it would need two escapes.
        return b"%b,%b]" % (fields, extra.encode())
    return b"%b,%b]" % (fields, orjson.dumps(extra))


def row_of(shard: int, event_id: str, user_id: str, kind: str, occurred_at: int, body: str | bytes) -> Row:
    """The row that was stored as this."""
    received_at, *fields, fingerprint, topic_id, partition, offset, raw = _decode(body)
    return [
        event_id,
        kind,
        user_id,
        occurred_at,
        received_at,
        shard,
        *fields,
        _extra(bytes(raw)),
        fingerprint,
        topic_id,
        partition,
        offset,
    ]


def _extra(raw: bytes) -> str | None:
    if raw == _NULL:
        return None
    return raw.decode() if raw[:1] == b"{" else str(orjson.loads(raw))
