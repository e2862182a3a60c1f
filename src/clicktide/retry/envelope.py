"""The envelope: the headers a diverted record carries, read and written in one place.

Each header stands once and is short, however often a record comes round; key, partition and bytes stay as they were.
"""

from __future__ import annotations

from dataclasses import dataclass

from clicktide import __version__, topics
from clicktide.log.port import Headers, Record

MAX_ERROR_BYTES = 512


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
    if len(where) == 3 and where[1].isdecimal() and where[2].isdecimal():
        timestamp = _number(found.get(topics.ORIGIN_TIMESTAMP), record.timestamp)
        origin = Origin(
            where[0], found.get(topics.ORIGIN_TOPIC_ID, ""), int(where[1]), int(where[2]), timestamp
        )
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
    )


def _number(text: str | None, default: int) -> int:
    return int(text) if text is not None and text.isdecimal() else default
