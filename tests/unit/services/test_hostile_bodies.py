"""Bodies that are meant to hurt: each gets its status, none gets a 5xx, and none costs more than it may."""

import asyncio
import gzip
import json
import resource
import zlib

import httpx
import pytest
import zstandard
from scripted_log import ScriptedLog

from clicktide.settings import Settings
from services.application import Services

GOOD = b'{"event_id":"e1","type":"view","user_id":7,"occurred_at":1000}'
MB = 1024 * 1024


def with_field(text: bytes) -> bytes:
    return GOOD[:-1] + b',"more":' + text + b"}"


def post(content, headers=None, **settings):
    log = ScriptedLog()

    async def main():
        given = {"log.path": "unused", "http.linger_ms": 0, **settings}
        services = Services(Settings(given), ["collector"], log)
        services.batcher.start()
        transport = httpx.ASGITransport(app=services.app)
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://tide") as client:
                sent = httpx.Headers({"content-type": "application/json"})
                sent.update(headers or {})
                return await client.post("/v1/events", content=content, headers=sent)
        finally:
            await services.stop()

    return asyncio.run(main()), log


def frame(size: int) -> bytes:
    return zstandard.ZstdCompressor().compress(b"[" + b" " * size + b"]")


def wide_window() -> bytes:
    """Little content, but a frame that asks its reader to keep 128 MiB."""
    parameters = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=0)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return compressor.compress(GOOD) + compressor.flush()


def bomb(layers: int) -> bytes:
    body = b" " * (24 * MB)
    for _ in range(layers):
        body = gzip.compress(body)
    return body


GZIP, ZSTD = {"content-encoding": "gzip"}, {"content-encoding": "zstd"}
LINES = {"content-type": "application/x-ndjson"}

CASES = {
    "deep arrays": (b"[" * 500_000, {}, 400),
    "deep objects": (b'{"a":' * 100_000, {}, 400),
    "deep, closed": (b"[" * 100_000 + b"]" * 100_000, {}, 400),
    "a deep field": (with_field(b"[" * 10_000 + b"]" * 10_000), {}, 400),
    "deep lines": (b"[" * 100_000 + b"\n" + b"[" * 100_000, LINES, 400),
    "NaN": (with_field(b"NaN"), {}, 400),
    "Infinity": (with_field(b"-Infinity"), {}, 400),
    "NaN as a time": (GOOD.replace(b"1000", b"NaN"), {}, 400),
    "1e999 as a time": (GOOD.replace(b"1000", b"1e999"), {}, 400),
    "a huge time": (GOOD.replace(b"1000", b"9" * 5000), {}, 400),
    "a huge negative amount": (
        GOOD.replace(b'"view"', b'"pay","order_id":"o","amount":-' + b"9" * 400),
        {},
        400,
    ),
    "a huge amount": (GOOD.replace(b'"view"', b'"pay","order_id":"o","amount":' + b"9" * 30), {}, 400),
    "a huge user id": (GOOD.replace(b"7", b"9" * 10_000), {}, 400),
    "bad UTF-8": (GOOD.replace(b"e1", b"\xff\xfe"), {}, 400),
    "half a surrogate": (GOOD.replace(b"e1", b"\\ud800"), {}, 400),
    "overlong UTF-8": (GOOD.replace(b"e1", b"\xc0\xaf"), {}, 400),
    "UTF-16": (GOOD.decode().encode("utf-16"), {}, 400),
    "no JSON": (b"hello", {}, 400),
    "nothing but commas": (b"[" + b"," * 100_000 + b"]", {}, 400),
    "100,000 nulls": (b"[" + b"null," * 99_999 + b"null]", {}, 413),
    "100,000 lines": (b"{}\n" * 100_000, LINES, 413),
    "an event of 40 KiB": (with_field(b'"' + b"a" * 40_000 + b'"'), {}, 400),
    "a gzip bomb": (bomb(1), GZIP, 413),
    "a gzip bomb in a gzip": (bomb(2), GZIP, 400),
    "many small gzip members": (gzip.compress(b" " * 200_000) * 100, GZIP, 413),
    "a zstd bomb": (frame(24 * MB), ZSTD, 413),
    "many zstd frames": (frame(200_000) * 100, ZSTD, 413),
    "a zstd window of 128 MiB": (wide_window(), ZSTD, 400),
    "gzip cut short": (gzip.compress(GOOD)[:-4], GZIP, 400),
    "deflate said to be gzip": (zlib.compress(GOOD), GZIP, 400),
    "plain said to be zstd": (GOOD, ZSTD, 400),
    "two encodings": (GOOD, {"content-encoding": "gzip, zstd"}, 415),
    "a form": (b"a=1", {"content-type": "application/x-www-form-urlencoded"}, 415),
    "a length that is a lie": (GOOD, {"content-length": "999999999"}, 413),
    "a length that is no number": (GOOD, {b"content-length": b"\xb2"}, 202),
    "a length of 5,000 digits": (GOOD, {"content-length": "9" * 5000}, 202),
}


@pytest.mark.parametrize("name", CASES)
def test_each_gets_its_status(name):
    content, headers, status = CASES[name]
    answer, log = post(content, headers)
    assert answer.status_code == status, answer.text[:500]
    assert answer.headers["content-type"] == (
        "application/json" if status == 202 else "application/problem+json"
    )
    assert bool(log.records()) == (status == 202)
    # What is wrong is said, not repeated at length.
    assert len(answer.content) < 2000


def test_duplicate_keys_the_last_counts_as_everywhere():
    answer, log = post(GOOD[:-1] + b',"user_id":"8","user_id":"9"}')
    assert answer.status_code == 202
    (record,) = log.records()
    assert (record.key, json.loads(record.value)["user_id"]) == (b"9", "9")


def test_bombs_do_not_fill_the_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for content, headers in ((CASES["a gzip bomb"][0], GZIP), (CASES["a zstd bomb"][0], ZSTD)):
        for _ in range(3):
            assert post(content, headers)[0].status_code == 413
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mb < 64
