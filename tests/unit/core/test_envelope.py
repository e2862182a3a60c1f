"""The envelope: what was written is read, once and short for ever; what cannot be read counts as absent."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clicktide import topics
from clicktide.log.port import Record
from clicktide.retry.envelope import MAX_ERROR_BYTES, Envelope, Origin, cut, not_before, read

ORIGIN = Origin("tide.events", "0a" * 16, 3, 17, 1_760_000_000_000)
FULL = Envelope(
    ORIGIN, 2, 1000, 2000, "mysql.17", "transient", "store_unavailable", "it is away", "replay-1", "request-1"
)

numbers = st.integers(0, 10**18 - 1)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
names = st.text("abcdefghijklmnopqrstuvwxyz0123456789._-", min_size=1, max_size=249)
envelopes = st.builds(
    Envelope,
    origin=st.builds(Origin, names, names, st.integers(0, 2**16 - 1), st.integers(0, 2**48 - 1), numbers),
    attempt=numbers,
    first_failed_at=numbers,
    not_before=numbers,
    stage=words,
    kind=words,
    code=words,
    error=words,
    replay_id=words,
    request_id=words,
)


def record(headers=(), topic="tide.retry.1s", timestamp=5):
    return Record(topic, 3, 99, timestamp, b"k", b"v", tuple(headers))


@given(envelopes)
def test_round_trip(envelope):
    assert read(record(envelope.headers()), "other") == envelope


def test_a_fresh_record_is_its_own_origin():
    fresh = read(record(topic="tide.events"), "0b" * 16)
    assert fresh == Envelope(Origin("tide.events", "0b" * 16, 3, 99, 5))


def test_every_header_is_named_in_topics():
    declared = {
        v for k, v in vars(topics).items() if k.isupper() and isinstance(v, str) and v.startswith("tide-")
    }
    assert {name for name, _ in FULL.headers()} == declared


def test_headers_stand_once_and_stay_short_however_often_it_comes_round():
    envelope, sizes = FULL, set()
    for i in range(100):
        envelope = dataclasses.replace(envelope, attempt=i % 10, error="é" * 5000, stage="s" * 5000)
        headers = envelope.headers()
        assert len({name for name, _ in headers}) == len(headers)
        sizes.add(sum(len(n) + len(v) for n, v in headers))
        envelope = read(record(headers), "x")
    assert max(sizes) < 4000
    assert max(sizes) - min(sizes) < 16, "attempt 0 has no header; nothing else changes size"
    assert envelope.origin == ORIGIN


def test_cut_never_halves_a_character():
    for text in ("x" * 600, "é" * 600, "漢" * 600, "x" + "😀" * 300):
        found = cut(text)
        assert MAX_ERROR_BYTES - 4 < len(found) <= MAX_ERROR_BYTES
        assert text.startswith(found.decode())
    assert cut("a\ud800b") == b"a?b"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [topics.ORIGIN, topics.ATTEMPT, topics.NOT_BEFORE, topics.ORIGIN_TIMESTAMP, "other"]
            ),
            st.binary(max_size=20) | st.sampled_from([b"a:1:2", b"::", b"a:b:1:2", b"-1", b"1e3"]),
        )
    )
)
@example([(topics.ORIGIN, b"t:1:" + b"9" * 5000)])
@example([(topics.ATTEMPT, b"9" * 5000)])
@example([(topics.ATTEMPT, "٣".encode())])
@example([(topics.ORIGIN, b"t:70000:5")])
@example([(topics.ORIGIN, b"t:5:" + str(2**48).encode())])
def test_garbage_counts_as_absent(headers):
    found = read(record(headers), "id")
    # What a claim has room for (claims): 2 bytes of partition, 6 of offset.
    assert 0 <= found.origin.partition < 2**16
    assert 0 <= found.origin.offset < 2**48
    for number in (found.attempt, found.not_before, found.first_failed_at, found.origin.timestamp):
        assert 0 <= number < 2**63
    assert not_before(record(headers).headers) >= 0


@pytest.mark.parametrize(
    ("value", "expected"), [(b"5", 5), (b"", 0), (b"-1", 0), (b"x", 0), ("٣".encode(), 0), (b"9" * 5000, 0)]
)
def test_when_a_record_is_due(value, expected):
    assert not_before((("other", b"7"), (topics.NOT_BEFORE, value))) == expected
    assert not_before(()) == 0


def test_a_doubled_header_is_read_once():
    assert read(record([(topics.ATTEMPT, b"1"), (topics.ATTEMPT, b"2")]), "x").attempt == 2


def test_the_requests_id_stays_with_its_record_through_every_failure():
    fresh = Record("tide.events", 1, 7, 1000, b"u", b"{}", ((topics.REQUEST_ID, b"abc-1"),))
    once = read(fresh, "t")
    assert once.request_id == "abc-1"
    again = read(fresh._replace(topic="tide.retry.1s", headers=once.headers()), "t")
    assert again == once
    assert dict(again.headers())[topics.REQUEST_ID] == b"abc-1"
