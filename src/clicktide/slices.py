"""The slice: some consecutive records of one partition, as one tuple. What bolts hand each other, by name.

On the wire a slice is `[topic, topic_id, topic_digest, partition]` (its place) and columns of equal length; rows are as in `row`.
"""

from __future__ import annotations

from typing import NamedTuple

from clicktide.log.port import Headers

# Streams between the components, and the fields of each.
RECORDS = ["place", "offsets", "timestamps", "values"]
RETRY_RECORDS = [*RECORDS, "envelopes"]
ROWS = ["place", "rows"]
FAILURES = ["place", "failures"]

FAILED = "failed"  # records for the divert bolt


class Place(NamedTuple):
    """Where a slice's records lie. `digest` is `parse.topic_digest(topic_id)`."""

    topic: str
    topic_id: str
    digest: str
    partition: int


class Failure(NamedTuple):
    """One record that cannot go on: what failed, how (`retry.policy` classes), and a line for a person."""

    offset: int
    stage: str
    kind: str
    code: str
    error: str


class Slice(NamedTuple):
    """Records as the spout emits them; `values` are the raw bytes. All sequences have the same length, at least 1."""

    id: str
    place: Place
    offsets: list[int]
    timestamps: list[int]
    values: list[bytes]
    headers: list[Headers] | None
    poison: bool = False


def texts(values: list[bytes]) -> list[str | None]:
    """The values as text for the JSON wire; None for bytes that are not UTF-8 (the divert bolt reads them again)."""
    try:
        return [value.decode() for value in values]
    except UnicodeDecodeError:
        return [_text(value) for value in values]


def _text(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None
