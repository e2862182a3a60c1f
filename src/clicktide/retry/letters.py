"""Dead letters: reads `dead` and picks from it, for the retry desk.

Promises: reads up to where the topic ended when it began, changes nothing, and never keeps more than a batch in memory.

A letter's name (its id) is where its record was first written, `topic:partition:offset` without the topics' prefix: it stays
the same however often the record is replayed, and dies again. Its key also has the stage: a record may be dead for
Redis and for a SQL shard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from clicktide import topics
from clicktide.errors import LogUnavailable, OffsetOutOfRange, SettingError
from clicktide.log.port import Batch, LogConsumer, Record, TopicPartition
from clicktide.retry import envelope
from clicktide.retry.dead_limits import group
from clicktide.retry.envelope import Envelope

_AT_ONCE = 1000
_PATIENCE = 30  # polls of a second without news

Key = tuple[str, str, int, int, str]
Progress = Callable[[int, int], None]


class Letter(NamedTuple):
    """One record of `dead` and what its headers say; `record.timestamp` is when it died (ms)."""

    record: Record
    envelope: Envelope
    id: str

    @property
    def key(self) -> Key:
        """Letters with the same key are one: written again after a lost acknowledgement, or dead once more."""
        o = self.envelope.origin
        return (o.topic, o.topic_id, o.partition, o.offset, self.envelope.stage)

    @property
    def user(self) -> str | None:
        return None if self.record.key is None else self.record.key.decode("utf-8", "replace")

    def as_dict(self, *, value: bool = False) -> dict[str, Any]:
        """For scripts: plain values, times in ms; with `value` the bytes, as text or else in hex."""
        e = self.envelope
        made: dict[str, Any] = {
            "id": self.id,
            "stage": e.stage,
            "code": e.code,
            "class": e.kind,
            "error": e.error,
            "at": self.record.timestamp,
            "written_at": e.origin.timestamp,
            "first_failed_at": e.first_failed_at,
            "attempt": e.attempt,
            "replays": replays_of(e.replay_id),
            "replay_id": e.replay_id,
            "user": self.user,
            "bytes": len(self.record.value),
            "dead": f"{self.record.partition}:{self.record.offset}",
        }
        if value:
            try:
                made["value"] = self.record.value.decode()
            except UnicodeDecodeError:
                made["value_hex"] = self.record.value.hex()
        return made


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters; None and 0 for all. `stage` is a whole stage or a store (`mysql` for all its shards), `topic` the one the
    record came from (without prefix); `since` and `until` (ms) are of the death, until excluded."""

    stage: str | None = None
    code: str | None = None
    since: int = 0
    until: int = 0
    user: str | None = None
    topic: str | None = None
    ids: frozenset[str] = frozenset()

    @property
    def everything(self) -> bool:
        return self == Filter()

    def matches(self, letter: Letter) -> bool:
        e, at = letter.envelope, letter.record.timestamp
        return (
            (not self.ids or letter.id in self.ids)
            and (self.stage is None or self.stage in (e.stage, group(e.stage)))
            and (self.code is None or self.code == e.code)
            and at >= self.since
            and (not self.until or at < self.until)
            and (self.topic is None or self.topic == letter.id.rsplit(":", 2)[0])
            and (self.user is None or self.user == letter.user or _says_user(letter.record.value, self.user))
        )


def replays_of(replay_id: str) -> int:
    """How often a record has been replayed: its `tide-replay-id` is `<run>.<n>`."""
    n = replay_id.rpartition(".")[2]
    return int(n) if n.isascii() and n.isdecimal() and len(n) < 9 else 0


def checked_id(text: str, prefix: str) -> str:
    """An id as somebody typed it, without the prefix. Raises `SettingError`."""
    parts = text.strip().rsplit(":", 2)
    if len(parts) != 3 or not parts[0] or not (parts[1].isdecimal() and parts[2].isdecimal()):
        raise SettingError(f"{text!r} is no dead letter's id: expected topic:partition:offset, as list shows")
    return f"{parts[0].removeprefix(prefix)}:{int(parts[1])}:{int(parts[2])}"


class Letters:
    """Reads the letters of one `dead` topic. Raises `LogUnavailable` when the broker is away."""

    def __init__(self, consumer: LogConsumer, prefix: str) -> None:
        self._consumer, self._prefix, self.topic = consumer, prefix, prefix + topics.DEAD

    def bounds(self) -> dict[TopicPartition, tuple[int, int]]:
        """(earliest, end) of each partition."""
        info = self._consumer.topics().get(self.topic)
        if info is None:
            raise SettingError(f"the log has no topic {self.topic}")
        return self._consumer.bounds([TopicPartition(self.topic, p) for p in range(info.partitions)])

    def read(self, wanted: Filter, progress: Progress | None = None) -> Iterator[Letter]:
        """Those that the filter wants, each partition in order. `progress(done, all)` counts records."""
        bounds = self.bounds()
        if wanted.ids:
            # A record keeps its partition's number for ever.
            numbers = {int(i.rsplit(":", 2)[1]) for i in wanted.ids}
            bounds = {p: b for p, b in bounds.items() if p.partition in numbers}
        if wanted.since:
            starts = self._consumer.offsets_at(list(bounds), wanted.since)
            bounds = {p: (max(first, starts.get(p, first)), end) for p, (first, end) in bounds.items()}
        for record in self.records(bounds, progress):
            letter = self.letter(record)
            if wanted.matches(letter):
                yield letter

    def records(
        self, bounds: dict[TopicPartition, tuple[int, int]], progress: Progress | None = None
    ) -> Iterator[Record]:
        """All records within the bounds (first, end)."""
        left = {p: end for p, (first, end) in bounds.items() if first < end}
        size, done = sum(end - bounds[p][0] for p, end in left.items()), 0
        self._consumer.assign({p: bounds[p][0] for p in left})
        quiet = 0
        while left:
            try:
                batches = self._consumer.poll(_AT_ONCE, 1.0)
            except OffsetOutOfRange as e:
                self._consumer.seek(TopicPartition(e.topic, e.partition), e.earliest)
                if e.earliest >= left.get(TopicPartition(e.topic, e.partition), 0):
                    left.pop(TopicPartition(e.topic, e.partition), None)
                continue
            quiet = 0 if batches else quiet + 1
            if quiet >= _PATIENCE:
                raise LogUnavailable(f"{self.topic} gave nothing for {_PATIENCE} s")
            for batch in batches:
                partition = TopicPartition(batch.topic, batch.partition)
                end = left.get(partition, 0)
                for record in _records(batch):
                    if record.offset < end:
                        done += 1
                        yield record
                if batch.offsets[-1] + 1 >= end:
                    left.pop(partition, None)
            if progress is not None:
                progress(done, size)

    def fetch(self, partition: int, offsets: list[int]) -> list[Letter]:
        """The letters at these offsets of `dead`, those that are gone left out."""
        found = self._consumer.fetch(TopicPartition(self.topic, partition), offsets, 15.0)
        return [self.letter(found[o]) for o in offsets if o in found]

    def close(self) -> None:
        self._consumer.close()

    def letter(self, record: Record) -> Letter:
        read = envelope.read(record, "")
        o = read.origin
        return Letter(record, read, f"{o.topic.removeprefix(self._prefix)}:{o.partition}:{o.offset}")


def _records(batch: Batch) -> Iterator[Record]:
    for i, offset in enumerate(batch.offsets):
        yield Record(
            batch.topic,
            batch.partition,
            offset,
            batch.timestamps[i],
            batch.keys[i],
            batch.values[i],
            batch.headers[i] if batch.headers is not None else (),
        )


def _says_user(value: bytes, user: str) -> bool:
    """Whether the record names the user, where its key does not (a producer of another kind)."""
    if user.encode() not in value:
        return False
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError:
        return False
    return isinstance(found, dict) and str(found.get("user_id")) == user
