"""The small parts of the log's adapters: chunks, runs, limits, settings."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clicktide.errors import LogError, RecordTooLarge, SettingError
from clicktide.log import open_log
from clicktide.log.embedded.chunk import Columns, decode, encode
from clicktide.log.kafka import Cluster, replication, topic_id
from clicktide.log.limits import MAX_RECORD_BYTES, check_sizes, check_topic
from clicktide.log.port import Outgoing
from clicktide.log.runs import runs
from clicktide.settings import Settings

rows = st.lists(
    st.tuples(
        st.integers(0, 2**62),
        st.none() | st.binary(max_size=20),
        st.binary(max_size=50),
        st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=5)), max_size=2).map(tuple),
    ),
    min_size=1,
    max_size=20,
)


@given(rows)
def test_a_chunk_is_read_as_it_was_written(records: list[tuple]) -> None:  # type: ignore[type-arg]
    stamps, keys, values, headers = (list(column) for column in zip(*records, strict=True))
    columns = Columns(stamps, keys, values, headers if any(headers) else None)
    assert decode(*encode(columns), len(records)) == columns


@given(rows, st.data())
def test_a_changed_chunk_is_refused(records: list[tuple], data: st.DataObject) -> None:  # type: ignore[type-arg]
    stamps, keys, values, headers = (list(column) for column in zip(*records, strict=True))
    body, checksum = encode(Columns(stamps, keys, values, headers))
    position = data.draw(st.integers(0, len(body) - 1))
    changed = bytearray(body)
    changed[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(LogError):
        decode(bytes(changed), checksum, len(records))


def test_a_chunk_of_another_length_is_refused() -> None:
    body, checksum = encode(Columns([1], [None], [b"v"], None))
    with pytest.raises(LogError, match="1 records where 2"):
        decode(body, checksum, 2)


@given(st.sets(st.integers(0, 200)).map(sorted), st.integers(1, 20))
def test_runs_cover_what_is_asked_for(offsets: list[int], gap: int) -> None:
    found = list(runs(offsets, gap))
    covered = [o for first, last in found for o in range(first, last + 1)]
    assert covered == sorted(set(covered))
    assert set(offsets) <= set(covered)
    assert {o for run in found for o in run} <= set(offsets)
    assert all(b[0] - a[1] > gap for a, b in pairwise(found))


def test_sizes_count_keys_and_headers() -> None:
    assert check_sizes([Outgoing("t", b"ab", b"cde", (("é", b"f"),)), Outgoing("t", None, b"")]) == 8
    check_sizes([Outgoing("t", None, bytes(MAX_RECORD_BYTES))])
    for record in (
        Outgoing("t", b"k", bytes(MAX_RECORD_BYTES)),
        Outgoing("t", None, bytes(MAX_RECORD_BYTES - 1), (("h", b"v"),)),
    ):
        with pytest.raises(RecordTooLarge):
            check_sizes([record])


def test_only_bytes_are_records() -> None:
    with pytest.raises(TypeError):
        check_sizes([Outgoing("t", None, "text")])  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        check_sizes([Outgoing("t", "key", b"")])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a/b", "x" * 250, "a\n"])
def test_names_that_kafka_refuses(name: str) -> None:
    with pytest.raises(LogError):
        check_topic(name, 1)


def test_replicas() -> None:
    assert [replication(n) for n in (0, 1, 2, 3, 5)] == [1, 1, 2, 3, 3]


def test_topic_ids_are_32_digits_whatever_the_sign() -> None:
    assert topic_id(1) == "0" * 31 + "1"
    assert topic_id(-1) == "f" * 32


def test_each_adapter_opens_without_a_broker() -> None:
    for adapter in ("kafka-python", "confluent"):
        log = open_log(Settings({"log.adapter": adapter, "kafka.bootstrap": "127.0.0.1:1"}))
        log.consumer("g").close()
        log.producer().close()
        log.admin().close()


def test_sasl_needs_a_mechanism() -> None:
    with pytest.raises(SettingError, match="sasl_mechanism"):
        Cluster.of(Settings({"kafka.security": "SASL_SSL"}))


def test_security_reaches_both_clients() -> None:
    from clicktide.log.confluent.client import consumer_conf
    from clicktide.log.kafka_python.client import common

    given_ = {
        "kafka.security": "SASL_SSL",
        "kafka.sasl_mechanism": "SCRAM-SHA-512",
        "kafka.username": "u",
        "kafka.password": "p",
        "kafka.ca_file": "ca.pem",
        "kafka.bootstrap": "a:1,b:2",
    }
    cluster = Cluster.of(Settings(given_))
    assert (
        consumer_conf(cluster, "g").items()
        >= {
            "security.protocol": "SASL_SSL",
            "sasl.mechanisms": "SCRAM-SHA-512",
            "sasl.username": "u",
            "sasl.password": "p",
            "ssl.ca.location": "ca.pem",
            "bootstrap.servers": "a:1,b:2",
        }.items()
    )
    python = common(cluster)
    assert python["bootstrap_servers"] == ["a:1", "b:2"]
    assert python["security_protocol"] == "SASL_SSL"
    assert (python["sasl_plain_username"], python["sasl_plain_password"]) == ("u", "p")
    assert (python["sasl_mechanism"], python["ssl_cafile"]) == ("SCRAM-SHA-512", "ca.pem")
