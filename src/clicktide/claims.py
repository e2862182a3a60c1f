"""Claims: which record an event id belongs to, as bytes small enough to remember a day of them.

A claim is 22 bytes: fingerprint (8), topic (6), partition (2), offset (6). With its 12-byte field and what Redis adds in a
listpack it takes about 40 bytes; docs/semantics.md has the measurement.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from struct import Struct

from clicktide.row import EVENT_ID, FINGERPRINT, OFFSET, PARTITION, TOPIC_ID, Row

# Field, content and topic, partition and offset.
_pack = Struct(">12s14sQ").pack
_new_digest = blake2b(digest_size=12).copy  # which costs half of making one


def field(event_id: str) -> bytes:
    """12 bytes that stand for an event id. At 2 billion ids in one shard a collision has odds of 1 in 10^10, and is
    caught by the fingerprint."""
    digest = _new_digest()
    digest.update(event_id.encode())
    return digest.digest()


def claim(row: Row) -> bytes:
    """The claim that this row makes: equal bytes mean the same record, an equal start the same content."""
    return packed((row,))[12:]


def packed(rows: Iterable[Row]) -> bytes:
    """Field and claim of each row, 34 bytes a row with nothing between, as the script takes them."""
    out = []
    for row in rows:
        digest = _new_digest()
        digest.update(row[EVENT_ID].encode())
        place = row[PARTITION] << 48 | row[OFFSET]
        out.append(_pack(digest.digest(), (row[FINGERPRINT] + row[TOPIC_ID]).encode(), place))
    return b"".join(out)
