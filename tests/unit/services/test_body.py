"""The collector's bodies: what is taken apart how, and what is refused before it costs memory."""

import asyncio
import gzip
import tracemalloc

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from services.collector.body import Limits, pieces, read
from services.problems import ProblemError

LIMITS = Limits(body=10_000, inflated=50_000, events=5, seconds=0.2)


def request(chunks, headers=(), *, hang=False):
    sent = list(chunks)

    async def receive():
        if sent:
            chunk = sent.pop(0)
            return {"type": "http.request", "body": chunk, "more_body": bool(sent) or hang}
        await asyncio.sleep(60)
        return None

    raw = [(k.encode(), v.encode()) for k, v in headers]
    return Request({"type": "http", "method": "POST", "headers": raw}, receive)


def read_all(*chunks, hang=False, **headers):
    named = [(k.replace("_", "-"), v) for k, v in headers.items()]
    return asyncio.run(read(request(chunks, named, hang=hang), LIMITS))


def refused(call, *args, **kwargs):
    with pytest.raises(ProblemError) as e:
        call(*args, **kwargs)
    return e.value.code


def test_a_body_in_chunks_is_read_whole():
    assert read_all(b"ab", b"", b"cd") == b"abcd"


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP"])
def test_gzip(encoding):
    assert read_all(gzip.compress(b"hello"), content_encoding=encoding) == b"hello"


def test_gzip_of_several_members():
    assert read_all(gzip.compress(b"a") + gzip.compress(b"b"), content_encoding="gzip") == b"ab"


def test_zstd_of_one_and_several_frames():
    assert read_all(zstandard.compress(b"a" * 1000), content_encoding="zstd") == b"a" * 1000
    two = zstandard.compress(b"a") + zstandard.compress(b"b")
    assert read_all(two, content_encoding="zstd") == b"ab"


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_compressed_body_cut_short_is_refused(encoding):
    whole = gzip.compress(b"hello" * 50) if encoding == "gzip" else zstandard.compress(b"hello" * 50)
    assert refused(read_all, whole[:-3], content_encoding=encoding) == "bad_body"


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_what_is_not_compressed_as_it_says_is_refused(encoding):
    assert refused(read_all, b"hello", content_encoding=encoding) == "bad_body"


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_bomb_is_refused_without_being_inflated(encoding):
    nothing = b"\0" * 10_000_000
    bomb = gzip.compress(nothing)[:10_000] if encoding == "gzip" else zstandard.compress(nothing)
    assert len(bomb) <= LIMITS.body
    tracemalloc.start()
    try:
        assert refused(read_all, bomb, content_encoding=encoding) == "too_large"
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_body_of_exactly_the_limit_is_taken_and_one_byte_more_is_not():
    assert len(read_all(b"x" * 10_000)) == 10_000
    assert refused(read_all, b"x" * 10_001) == "too_large"
    assert refused(read_all, b"", content_length="10001") == "too_large"


def test_a_body_that_never_ends_is_refused_in_time():
    assert refused(read_all, b"x", hang=True) == "body_timeout"


def test_an_unknown_encoding_is_refused():
    assert refused(read_all, b"x", content_encoding="br") == "unsupported_encoding"


@pytest.mark.parametrize(
    ("body", "media_type", "expected"),
    [
        (b'{"a":1}', "application/json", [b'{"a":1}']),
        (b' [ {"a":1} , {"b":[2,"]"]} ] ', "application/json; charset=utf-8", [b'{"a":1}', b'{"b":[2,"]"]}']),
        (b'{"a":1}\n\n{"b":2}\r\n', "application/x-ndjson", [b'{"a":1}', b'{"b":2}\r']),
        (b'{"a":1}\n{"b":2}', "text/plain;charset=UTF-8", [b'{"a":1}', b'{"b":2}']),
        (b'[{"a":1}]', "text/plain", [b'{"a":1}']),
        (b'{\n "a": 1\n}', "text/plain", [b'{\n "a": 1\n}']),
        (b'{"a":1}', "", [b'{"a":1}']),
        (b"[1,null]", "application/json", [b"1", b"null"]),
    ],
)
def test_pieces(body, media_type, expected):
    assert pieces(body, media_type, LIMITS) == expected


@pytest.mark.parametrize(
    ("body", "media_type", "code"),
    [
        (b"", "application/json", "bad_body"),
        (b" \n", "application/x-ndjson", "bad_body"),
        (b"[]", "application/json", "bad_body"),
        (b'[{"a":1}', "application/json", "bad_body"),
        (b"[" * 9_000, "application/json", "bad_body"),
        (b"{}", "application/xml", "unsupported_media_type"),
        (b"[1,2,3,4,5,6]", "application/json", "too_many_events"),
        (b"{}\n" * 6, "application/x-ndjson", "too_many_events"),
    ],
)
def test_refused_bodies(body, media_type, code):
    assert refused(pieces, body, media_type, LIMITS) == code


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["application/json", "text/plain", "application/x-ndjson"]))
def test_any_bytes_are_taken_apart_or_refused(body, media_type):
    code = None
    try:
        found = pieces(body, media_type, LIMITS)
    except ProblemError as e:
        code, found = e.code, []
    assert code in {None, "bad_body", "too_many_events"}
    # By JSON's blanks: a vertical tab, say, is a piece, which the parser refuses.
    assert all(piece.strip(b" \t\r\n") for piece in found)
    assert bool(found) == (code is None)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers()), min_size=1, max_size=5))
def test_an_array_and_its_lines_have_the_same_pieces(objects):
    texts = [msgspec.json.encode(o) for o in objects]
    assert pieces(b"[" + b",".join(texts) + b"]", "application/json", LIMITS) == texts
    assert pieces(b"\n".join(texts), "application/x-ndjson", LIMITS) == texts
