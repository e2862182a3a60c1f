"""The slice: some consecutive records of one partition, as one tuple. What bolts hand each other, by name.

On the wire each of `Records`, `Retries`, `Rows` and `Failures` is a tuple of one value, the text that `packing` makes of it.
"""

from __future__ import annotations

from typing import NamedTuple

from clicktide.log.port import Headers
from clicktide.retry.envelope import Origin
from clicktide.row import Row

# Streams between the components, and the one field of each.
RECORDS = ["records"]
RETRIES = ["retries"]
ROWS = ["rows"]
FAILURES = ["failures"]

FAILED = "failed"  # records for the divert bolt


class Place(NamedTuple):
    """Where a slice's records lie. `digest` is `parse.topic_digest(topic_id)`."""

    topic: str
    topic_id: str
    digest: str
    partition: int


class Failure(NamedTuple):
    """One record that cannot go on: what failed, how (`retry.policy` classes), and a line for a person. `away_s`: for how long
    its store has been away (s), as far as that is known."""

    offset: int
    stage: str
    kind: str
    code: str
    error: str
    away_s: float = 0.0


class Records(NamedTuple):
    """Records as they lie in the log: columns of equal length, `values` byte for byte, `timestamps` in ms."""

    place: Place
    offsets: list[int]
    timestamps: list[int]
    values: list[bytes]


class Retries(NamedTuple):
    """Records of a retry topic, in columns; each with the stage that failed and where it was first written."""

    place: Place
    offsets: list[int]
    values: list[bytes]
    stages: list[str]
    origins: list[Origin]


class Rows(NamedTuple):
    """The rows (`row`) of a slice."""

    place: Place
    rows: list[Row]


class Failures(NamedTuple):
    """What cannot go on of a slice."""

    place: Place
    failures: list[Failure]


class Slice(NamedTuple):
    """Records as the spout emits them; `values` are the raw bytes. All sequences have the same length, at least 1. `poison`: the
    error code of a record that is to be dead-lettered without another look (`suspects`); empty for all others."""

    id: str
    place: Place
    offsets: list[int]
    timestamps: list[int]
    values: list[bytes]
    headers: list[Headers] | None
    poison: str = ""
