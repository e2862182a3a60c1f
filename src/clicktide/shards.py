"""Shards: which logical shard a user belongs to, and which DSN holds a logical shard.

The hash is Kafka's own (murmur2 of the key), so with 2^m partitions and 2^k shards one partition holds the users
of just 2^(k-m) shards.
"""

from __future__ import annotations

from functools import lru_cache

_MASK = 0xFFFFFFFF
_M = 0x5BD1E995


def murmur2(data: bytes) -> int:
    """Kafka's murmur2 (seed 0x9747b28c), as an unsigned 32-bit number.

    Source: org.apache.kafka.common.utils.Utils.murmur2, whose partitioner takes `(hash & 0x7fffffff) % partitions`.
    """
    length = len(data)
    h = 0x9747B28C ^ length
    whole = length & ~3
    for i in range(0, whole, 4):
        k = (int.from_bytes(data[i : i + 4], "little") * _M) & _MASK
        k = ((k ^ (k >> 24)) * _M) & _MASK
        h = ((h * _M) & _MASK) ^ k
    tail = length & 3
    if tail:
        h = ((h ^ int.from_bytes(data[whole:], "little")) * _M) & _MASK
    h = ((h ^ (h >> 13)) * _M) & _MASK
    return h ^ (h >> 15)


# In Python the hash costs as much as the rest of most callers' work, and the same users come again and again.
_hashed = lru_cache(65_536)(murmur2)


def partition_of(key: bytes, partitions: int) -> int:
    """The partition Kafka's default partitioner puts `key` in."""
    return (_hashed(key) & 0x7FFFFFFF) % partitions


def shard_of(user_id: str, shards: int) -> int:
    """The logical shard of a user, 0 <= shard < shards."""
    return (_hashed(user_id.encode()) & 0x7FFFFFFF) % shards


def dsn_index(shard: int, dsns: int) -> int:
    """Which of `dsns` servers holds `shard`, as long as no shard has been moved."""
    return shard % dsns
