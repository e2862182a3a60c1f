"""Shards: Kafka's own hash, to the bit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2 as kafkas

from clicktide.shards import dsn_index, murmur2, partition_of, shard_of

# Kafka's own test (UtilsTest.testMurmur2), as signed 32-bit numbers.
VECTORS = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("key", "signed"), VECTORS.items())
def test_known_vectors(key, signed):
    assert murmur2(key) == signed & 0xFFFFFFFF


@given(st.binary(max_size=70))
def test_equal_to_kafka_pythons(key):
    assert murmur2(key) == kafkas(key) & 0xFFFFFFFF


@given(st.text(min_size=1, max_size=20), st.integers(0, 6), st.integers(0, 6))
def test_a_partition_holds_the_users_of_few_shards(user, m, more):
    """2^m partitions and 2^k shards: the shard decides the partition, so a partition touches 2^(k-m) shards."""
    partitions, shards = 2**m, 2 ** (m + more)
    shard = shard_of(user, shards)
    assert 0 <= shard < shards
    assert partition_of(user.encode(), partitions) == shard % partitions


def test_shards_spread_users_and_dsns_spread_shards():
    counts = [0] * 64
    for i in range(6400):
        counts[shard_of(f"user-{i}", 64)] += 1
    assert min(counts) > 50
    assert max(counts) < 160
    assert [dsn_index(s, 2) for s in range(4)] == [0, 1, 0, 1]
