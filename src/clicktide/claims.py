"""Claims: which record an event id belongs to, as bytes small enough to remember a day of them.

A claim is 22 bytes: fingerprint (8), topic (6), partition (2), offset (6). With its 12-byte field and what Redis adds in a
listpack it takes about 40 bytes; docs/semantics.md has the measurement.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from clicktide.row import EVENT_ID, FINGERPRINT, OFFSET, PARTITION, TOPIC_ID, Row


def field(event_id: str) -> bytes:
    """12 bytes that stand for an event id. At 2 billion ids in one shard a collision has odds of 1 in 10^10, and is
    caught by the fingerprint."""
    return blake2b(event_id.encode(), digest_size=12).digest()


def claim(row: Row) -> bytes:
    """The claim that this row makes: equal bytes mean the same record, an equal start the same content."""
    content_and_topic: bytes = (row[FINGERPRINT] + row[TOPIC_ID]).encode()
    place: int = row[PARTITION] << 48 | row[OFFSET]
    return content_and_topic + place.to_bytes(8, "big")


def packed(rows: Iterable[Row]) -> bytes:
    """Field and claim of each row, 34 bytes a row with nothing between, as the script takes them."""
    return b"".join([part for row in rows for part in (field(row[EVENT_ID]), claim(row))])
