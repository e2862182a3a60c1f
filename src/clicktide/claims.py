"""Claims: who may apply an event id, as bytes small enough to remember a day of them.

A claim is 23 bytes: fingerprint (8), topic (6), partition (2), offset (6), state (1). With its 12-byte field and what
Redis adds in a listpack it takes about 40 bytes; docs/semantics.md has the measurement.
"""

from __future__ import annotations

from hashlib import blake2b

from clicktide.row import EVENT_ID, FINGERPRINT, OFFSET, PARTITION, TOPIC_ID, Row

CLAIMED = b"0"
APPLIED = b"1"


def field(event_id: str) -> bytes:
    """12 bytes that stand for an event id. At 2 billion ids in one shard a collision has odds of 1 in 10^10, and is
    caught by the fingerprint."""
    return blake2b(event_id.encode(), digest_size=12).digest()


def bucket(field: bytes, buckets: int) -> int:
    """Which of the shard's hashes keeps this claim (`buckets` is a power of two up to 2^16)."""
    return (field[0] << 8 | field[1]) & (buckets - 1)


def claim(row: Row) -> bytes:
    """The claim that this row makes: equal bytes mean the same record, an equal start the same content."""
    topic_and_content = (row[FINGERPRINT] + row[TOPIC_ID]).encode()
    partition: int = row[PARTITION]
    offset: int = row[OFFSET]
    return topic_and_content + partition.to_bytes(2, "big") + offset.to_bytes(6, "big") + CLAIMED


def flat(rows: list[Row], buckets: int) -> list[int | bytes]:
    """(bucket, field, claim) of each row, one after the other, as the scripts take them."""
    out: list[int | bytes] = []
    mask = buckets - 1
    for row in rows:
        digest = blake2b(row[EVENT_ID].encode(), digest_size=12).digest()
        out += ((digest[0] << 8 | digest[1]) & mask, digest, claim(row))
    return out
