"""The envelope: the headers a diverted record carries, read and written in one place.

Each header stands once and is short, however often a record comes round; key, partition and bytes stay as they were.
"""

from __future__ import annotations

from dataclasses import dataclass

from clicktide import __version__, topics
from clicktide.log.port import Headers, Record

MAX_ERROR_BYTES = 512
_MAX_DIGITS = 18  # more would not fit 64 bits
_NOWHERE = 2**64


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a record was first written: its place in the log for ever, whatever topic it is in now."""

    topic: str
    topic_id: str
    partition: int
    offset: int
    timestamp: int


@dataclass(frozen=True, slots=True)
class Envelope:
    """What is known of a failed record. Times in ms; `tier` is None outside the retry topics."""

    origin: Origin
    attempt: int = 0
    first_failed_at: int = 0
    not_before: int = 0
    stage: str = ""
    kind: str = ""
    code: str = ""
    error: str = ""
    replay_id: str = ""
    request_id: str = ""

    def headers(self) -> Headers:
        o = self.origin
        pairs = {
            topics.ORIGIN: f"{o.topic}:{o.partition}:{o.offset}",
            topics.ORIGIN_TOPIC_ID: o.topic_id,
            topics.ORIGIN_TIMESTAMP: str(o.timestamp),
            topics.ATTEMPT: str(self.attempt),
            topics.FIRST_FAILED_AT: str(self.first_failed_at),
            topics.NOT_BEFORE: str(self.not_before),
            topics.STAGE: self.stage,
            topics.ERROR_CLASS: self.kind,
            topics.ERROR_CODE: self.code,
            topics.ERROR: self.error,
            topics.VERSION: __version__,
            topics.REPLAY_ID: self.replay_id,
            topics.REQUEST_ID: self.request_id,
        }
        return tuple((name, cut(value)) for name, value in pairs.items() if value)


def cut(text: str) -> bytes:
    """The text as UTF-8, at most `MAX_ERROR_BYTES`, never half a character."""
    return text.encode("utf-8", "replace")[:MAX_ERROR_BYTES].decode("utf-8", "ignore").encode()


def read(record: Record, topic_id: str) -> Envelope:
    """The record's envelope; a record without one (the fresh path's) is its own origin. Never raises: what cannot be
    read counts as absent."""
    found = {name: value.decode("utf-8", "replace") for name, value in record.headers}
    origin = Origin(record.topic, topic_id, record.partition, record.offset, record.timestamp)
    where = found.get(topics.ORIGIN, "").rsplit(":", 2)
    if len(where) == 3:
        partition, offset = _number(where[1], _NOWHERE), _number(where[2], _NOWHERE)
        # A claim has room for so much (`claims`); Kafka writes neither.
        if partition < 2**16 and offset < 2**48:
            timestamp = _number(found.get(topics.ORIGIN_TIMESTAMP), record.timestamp)
            origin = Origin(where[0], found.get(topics.ORIGIN_TOPIC_ID, ""), partition, offset, timestamp)
    return Envelope(
        origin=origin,
        attempt=_number(found.get(topics.ATTEMPT), 0),
        first_failed_at=_number(found.get(topics.FIRST_FAILED_AT), 0),
        not_before=_number(found.get(topics.NOT_BEFORE), 0),
        stage=found.get(topics.STAGE, ""),
        kind=found.get(topics.ERROR_CLASS, ""),
        code=found.get(topics.ERROR_CODE, ""),
        error=found.get(topics.ERROR, ""),
        replay_id=found.get(topics.REPLAY_ID, ""),
        request_id=found.get(topics.REQUEST_ID, ""),
    )


def not_before(headers: Headers) -> int:
    """When (ms since the epoch) a record of a retry topic is due; 0, which is now, where that cannot be read. Never raises."""
    for name, value in headers:
        if name == topics.NOT_BEFORE:
            return _number(value.decode("ascii", "replace"), 0)
    return 0


def _number(text: str | None, default: int) -> int:
    plain = text is not None and len(text) <= _MAX_DIGITS and text.isascii() and text.isdecimal()
    return int(text) if plain and text is not None else default
