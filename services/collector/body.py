"""Bodies of uploads: read with a limit and a deadline, inflated with a limit, split into one piece an event.

It promises bounded memory whatever is sent: at most the body's limit is read, at most the inflated limit (and one
chunk) is inflated, and a piece is a slice of that, decoded by nobody yet.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import NamedTuple

import msgspec
import zstandard
from starlette.requests import ClientDisconnect, Request

from services.problems import ProblemError

_CHUNK = 64 * 1024
JSON_TYPES = frozenset({"application/json", "text/plain", ""})
LINE_TYPES = frozenset(
    {"application/x-ndjson", "application/ndjson", "application/jsonl", "application/jsonlines"}
)
_ZSTD_WINDOW = 8 * 1024 * 1024
_BLANK = b" \t\r\n"
_split = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Limits(NamedTuple):
    """Bytes on the wire, bytes inflated, events a request, seconds until the body is there."""

    body: int
    inflated: int
    events: int
    seconds: float


def stated_length(request: Request) -> int | None:
    """What Content-Length says; None where it says nothing that could be a length."""
    text = request.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None


async def read(request: Request, limits: Limits) -> bytes:
    """The body as it was before it was compressed. Raises problems 400, 408, 413, 415."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"identity", "", "gzip", "x-gzip", "zstd"}:
        raise ProblemError(
            "unsupported_encoding", f"Content-Encoding {encoding[:40]!r}: expected gzip, zstd or none"
        )
    if (stated_length(request) or 0) > limits.body:
        raise _too_large(limits.body, "body")
    raw = bytearray()
    try:
        async with asyncio.timeout(limits.seconds):
            async for chunk in request.stream():
                raw += chunk
                if len(raw) > limits.body:
                    raise _too_large(limits.body, "body")
    except TimeoutError:
        raise ProblemError("body_timeout", f"the body was not there after {limits.seconds:g} s") from None
    except ClientDisconnect:
        raise ProblemError("bad_body", "the connection closed before the body's end") from None
    if encoding in {"gzip", "x-gzip"}:
        return _gunzip(bytes(raw), limits.inflated)
    if encoding == "zstd":
        return _unzstd(bytes(raw), limits.inflated)
    return bytes(raw)


def pieces(body: bytes, content_type: str, limits: Limits) -> list[bytes]:
    """One piece of JSON text an event: of an object, an array, or lines. Raises problems 400, 413, 415.

    With text/plain or no type (`navigator.sendBeacon` sends that) the first character tells an array from lines.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type not in JSON_TYPES and media_type not in LINE_TYPES:
        raise ProblemError(
            "unsupported_media_type",
            f"Content-Type {media_type[:60]!r}: expected application/json, application/x-ndjson or text/plain",
        )
    if not body.strip(_BLANK):
        raise ProblemError(
            "bad_body", "the body is empty: expected an event, an array of events, or one event a line"
        )
    if media_type in LINE_TYPES:
        return _bounded([line for line in body.split(b"\n") if line.strip(_BLANK)], limits)
    if body.lstrip(_BLANK)[:1] == b"[":
        return _array(body, limits)
    if media_type == "application/json":
        return [body]
    lines = [line for line in body.split(b"\n") if line.strip(_BLANK)]
    # One object written over several lines is no batch: its second line does not start an object.
    if len(lines) > 1 and all(
        line.lstrip(_BLANK)[:1] == b"{" and line.rstrip(_BLANK)[-1:] == b"}" for line in lines
    ):
        return _bounded(lines, limits)
    return [body]


def _array(body: bytes, limits: Limits) -> list[bytes]:
    try:
        found = [bytes(piece) for piece in _split(body)]
    except (msgspec.MsgspecError, RecursionError) as e:
        raise ProblemError("bad_body", f"the body is not a JSON array: {str(e)[:200]}") from None
    if not found:
        raise ProblemError("bad_body", "the array is empty: expected at least one event")
    return _bounded(found, limits)


def _bounded(found: list[bytes], limits: Limits) -> list[bytes]:
    if len(found) > limits.events:
        raise ProblemError(
            "too_many_events", f"{len(found)} events in one request, at most {limits.events} are taken"
        )
    return found


def _gunzip(raw: bytes, limit: int) -> bytes:
    out = bytearray()
    try:
        while raw:
            # A gzip body may be several members, one after the other.
            member = zlib.decompressobj(wbits=31)
            out += member.decompress(raw, limit + 1 - len(out))
            if len(out) > limit:
                raise _too_large(limit, "inflated body")
            if not member.eof:
                raise ProblemError("bad_body", "the gzip body is cut short")
            raw = member.unused_data
    except zlib.error as e:
        raise ProblemError("bad_body", f"the body is not gzip: {e}") from None
    return bytes(out)


def _unzstd(raw: bytes, limit: int) -> bytes:
    # A window that big would cost more memory than the body may have.
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    try:
        # The reader inflates no more than it is asked for, but does not tell a body that is cut short; so it only
        # measures, and what is known to be small is then inflated frame by frame.
        size, reader = 0, decompressor.stream_reader(raw, read_across_frames=True)
        while chunk := reader.read(_CHUNK):
            size += len(chunk)
            if size > limit:
                raise _too_large(limit, "inflated body")
        out = bytearray()
        while raw:
            frame = decompressor.decompressobj()
            out += frame.decompress(raw)
            if not frame.eof:
                raise ProblemError("bad_body", "the zstd body is cut short")
            raw = frame.unused_data
    except zstandard.ZstdError as e:
        raise ProblemError("bad_body", f"the body is not zstd: {e}") from None
    return bytes(out)


def _too_large(limit: int, what: str) -> ProblemError:
    return ProblemError("too_large", f"the {what} has more than {limit} bytes", limit=limit)
