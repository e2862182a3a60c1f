"""The chunk: some consecutive records of one partition as they lie in one row of the log's file.

A chunk that does not match its checksum is refused; nothing torn or changed on the disk is ever read as a record.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

import msgspec

from clicktide.errors import LogError
from clicktide.log.port import Headers

# A reader decodes a whole chunk to get at one record of it, so they stay small.
MAX_RECORDS = 1000
MAX_BYTES = 512 * 1024


class Columns(NamedTuple):
    """Records as columns of equal length. `headers` is None where no record has any."""

    timestamps: list[int]
    keys: list[bytes | None]
    values: list[bytes]
    headers: list[Headers] | None

    def part(self, start: int, stop: int) -> Columns:
        """Records start <= i < stop."""
        headers = self.headers[start:stop] if self.headers is not None else None
        return Columns(self.timestamps[start:stop], self.keys[start:stop], self.values[start:stop], headers)


class _Body(msgspec.Struct, array_like=True, frozen=True, gc=False):
    # One number where all timestamps are the same, as they are when one call wrote the chunk.
    timestamps: int | list[int]
    keys: list[bytes | None]
    values: list[bytes]
    headers: list[Headers] | None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Body)


def encode(columns: Columns) -> tuple[bytes, int]:
    """(body, checksum) of a chunk."""
    first = columns.timestamps[0]
    same = columns.timestamps.count(first) == len(columns.timestamps)
    body = _encoder.encode(
        _Body(first if same else columns.timestamps, columns.keys, columns.values, columns.headers)
    )
    return body, zlib.crc32(body)


def decode(body: bytes, checksum: int, count: int) -> Columns:
    """The records of a chunk; raises `LogError` when it is not what was written."""
    if zlib.crc32(body) != checksum:
        raise LogError("a chunk of the log does not match its checksum: the file is damaged")
    try:
        b = _decoder.decode(body)
    except msgspec.MsgspecError as e:
        raise LogError(f"a chunk of the log cannot be read: {e}") from e
    timestamps = b.timestamps if isinstance(b.timestamps, list) else [b.timestamps] * len(b.values)
    if not len(timestamps) == len(b.keys) == len(b.values) == count:
        raise LogError(f"a chunk of the log has {len(b.values)} records where {count} were written")
    return Columns(timestamps, b.keys, b.values, b.headers)
