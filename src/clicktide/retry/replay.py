"""Replay: sends dead letters back to the stage that failed, as the records they were.

Promises: a replayed record keeps its origin, so its claim is its own and nothing is counted twice; it goes to the first retry
topic, so fresh traffic never waits for it; one that has been replayed too often is left alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from clicktide import topics
from clicktide.log.port import LogProducer, Outgoing
from clicktide.parse import Parser, Rejection
from clicktide.retry.letters import Key, Letter, Letters, replays_of
from clicktide.row import EVENT_ID, FINGERPRINT

# A stage after which nothing is stored yet: all of it has to be done.
ALL = "parse"
_TIMEOUT_S = 15.0
_AT_ONCE = 500


@dataclass(slots=True)
class Selection:
    """Letters to work on: where the newest of each key lies in `dead`, and all that are the same."""

    newest: dict[Key, tuple[int, int]] = field(default_factory=dict)
    offsets: dict[Key, list[tuple[int, int]]] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)  # id -> its replays, more than are allowed

    def __len__(self) -> int:
        return len(self.newest)

    def add(self, letter: Letter) -> None:
        where = (letter.record.partition, letter.record.offset)
        self.newest[letter.key] = max(where, self.newest.get(letter.key, where))
        self.offsets.setdefault(letter.key, []).append(where)

    def by_partition(self, keys: Iterable[Key]) -> dict[int, set[int]]:
        """Offsets of all letters with these keys."""
        out: dict[int, set[int]] = {}
        for key in keys:
            for partition, offset in self.offsets[key]:
                out.setdefault(partition, set()).add(offset)
        return out


def select(letters: Iterable[Letter], max_replays: int | None = None) -> Selection:
    """Each record and stage once. `max_replays`: leave those alone that have been replayed so often; None for all."""
    chosen = Selection()
    for letter in letters:
        n = replays_of(letter.envelope.replay_id)
        if max_replays is not None and n >= max_replays:
            chosen.refused[letter.id] = n
            # An older letter of the same record would be a way round the limit.
            chosen.newest.pop(letter.key, None)
            chosen.offsets.pop(letter.key, None)
        else:
            chosen.add(letter)
            chosen.refused.pop(letter.id, None)
    return chosen


def outgoing(letter: Letter, prefix: str, run: str, now_ms: int, value: bytes | None = None) -> Outgoing:
    """The record as it goes back; `value` in place of its bytes. Its attempts and its deadline begin anew."""
    e = letter.envelope
    n = replays_of(e.replay_id) + 1
    after = dataclasses.replace(
        e,
        attempt=0,
        first_failed_at=now_ms,
        not_before=now_ms,
        stage=ALL if nowhere_stored(letter) else e.stage,
        replay_id=f"{run}.{n}",
    )
    bytes_ = letter.record.value if value is None else value
    return Outgoing(
        prefix + topics.RETRY[0],
        letter.record.key,
        bytes_,
        after.headers(),
        letter.record.partition,
        now_ms,
    )


def nowhere_stored(letter: Letter) -> bool:
    """Whether no store has the record: it failed before them, or Redis, the first, refused its id."""
    e = letter.envelope
    return not e.stage.startswith(("redis", "mysql")) or (e.stage == "redis" and e.code == "id_conflict")


def objection(letter: Letter, value: bytes, parser: Parser) -> str | None:
    """Why this edit would do no good; None when it is fine."""
    o = letter.envelope.origin
    new = parser.row(value, o.offset, o.timestamp, o.partition, "")
    if isinstance(new, Rejection):
        return f"{letter.id}: it would be refused again: {new.code}: {new.detail}"
    old = parser.row(letter.record.value, o.offset, o.timestamp, o.partition, "")
    if nowhere_stored(letter) or isinstance(old, Rejection):
        return None
    if (old[EVENT_ID], old[FINGERPRINT]) != (new[EVENT_ID], new[FINGERPRINT]):
        return f"{letter.id}: another store has the event as it was; only fields that are not counted may be edited"
    return None


class Replay:
    """One run. `sent(letters)` is told of each batch before it goes out; `pace(n)` waits after n records, as the rate says."""

    def __init__(
        self,
        letters: Letters,
        producer: LogProducer,
        prefix: str,
        run: str,
        now_ms: Callable[[], int],
        sent: Callable[[list[Letter]], None],
        pace: Callable[[int], None],
        at_once: int = _AT_ONCE,
    ) -> None:
        self._letters, self._producer, self._prefix, self._run = letters, producer, prefix, run
        self._now_ms, self._sent, self._pace, self._at_once = now_ms, sent, pace, at_once
        self.done: list[Key] = []

    def send(self, chosen: Selection, edits: Mapping[str, bytes]) -> None:
        """Send them all, oldest first within a partition; `done` grows with each batch that the broker has acknowledged.

        `edits` are new bytes by id. Raises `LogUnavailable`.
        """
        by_partition: dict[int, list[int]] = {}
        for partition, offset in chosen.newest.values():
            by_partition.setdefault(partition, []).append(offset)
        for partition, offsets in by_partition.items():
            offsets.sort()
            for i in range(0, len(offsets), self._at_once):
                found = self._letters.fetch(partition, offsets[i : i + self._at_once])
                self._batch(found, edits)

    def _batch(self, found: list[Letter], edits: Mapping[str, bytes]) -> None:
        if not found:
            return
        self._sent(found)
        now = self._now_ms()
        records = [outgoing(x, self._prefix, self._run, now, edits.get(x.id)) for x in found]
        self._producer.send(records, _TIMEOUT_S)
        self.done += [letter.key for letter in found]
        self._pace(len(found))
