"""Suspects: slices that failed, or were on their way when the worker died, too often; how the one guilty record is found.

Pure. Promises: a record is convicted only after it was alone in flight and failed, or its worker died, `fails` times in a
row, and other slices got through before each of these times: what befalls everything (a bad deploy, a full disk, a broker or a
store that is away) and what befalls anybody now and then (kill -9, a rebalance) convicts nobody.

How: a slice with `fails` failures is a *suspect*. Suspects go out one at a time, with nothing else of their task in flight, and
no other task of the namespace at it at the same time: a *trial*. A trial that ends well clears its slice. One that fails is
a *strike*; a slice with a strike is cut into `PIECES`, each a suspect, and a single record with `fails` strikes is convicted.
Lives of a task hand on what they know as a `Note` of each partition, kept by a port (`Notes`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from clicktide.flight import Entry
from clicktide.log.port import TopicPartition
from clicktide.slices import Slice

log = logging.getLogger(__name__)

# A slice of 1000 is a single record after two strikes; its innocent pieces cost a trial each, of some hundredths of a second.
PIECES = 32

# How a slice was on its way when a note was written.
WAITING, FLYING, ON_TRIAL = "", "flying", "trial"

POISON = "poison"
KILLS_WORKER = "kills_worker"

TURN_S = 2.0  # trials in a row; then the other slices of the task have as long
DRAIN_S = 10.0  # how long a turn waits for what is still in flight
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 5.0
_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Noted:
    """The records `first` up to but not `next`: what is held against them. `killed`: a strike was a worker's death."""

    first: int
    next: int
    fails: int
    strikes: int = 0
    killed: bool = False
    way: str = WAITING


@dataclass(frozen=True, slots=True)
class Note:
    """What one life (`boot`) of a task leaves to the next of one partition. `position` is the committed offset, `lives` how many
    lives in a row have ended without moving it, `run_id` the Redis that keeps the note."""

    boot: str
    run_id: str
    topic_id: str
    position: int
    lives: int = 0
    ranges: tuple[Noted, ...] = ()


class Notes(Protocol):
    """Where notes are kept. Nothing here raises for a store that is away: nothing is known then, and nobody has the turn."""

    def read(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Note]: ...

    def write(self, notes: Mapping[TopicPartition, Note]) -> None: ...

    def take_turn(self, who: str) -> bool:
        """Whether `who` may hold a trial now; asked again, it keeps the turn for another while."""

    def leave_turn(self, who: str) -> None: ...


class Forgetful:
    """Keeps nothing: each life is the first, each turn is had."""

    def read(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Note]:  # noqa: ARG002
        return {}

    def write(self, notes: Mapping[TopicPartition, Note]) -> None:
        pass

    def take_turn(self, who: str) -> bool:  # noqa: ARG002
        return True

    def leave_turn(self, who: str) -> None:
        pass


def inherit(note: Note | None, boot: str, run_id: str, topic_id: str, position: int) -> Note:
    """The new life's note of a partition, made of the last one's: what was on its way has failed once more.

    Not when it is the same life (it begins again where Redis was lost), nor when Redis is another one: then more has
    died than a worker, and the note may be old.
    """
    fresh = Note(boot, run_id, topic_id, position)
    if note is None or note.topic_id != topic_id:
        return fresh
    counts = note.boot != boot and note.run_id == run_id
    ranges = tuple(_counted(r, counts) for r in note.ranges if r.next > position)
    lives = 0 if position > note.position else note.lives + counts
    return replace(fresh, lives=lives, ranges=ranges)


def _counted(r: Noted, counts: bool) -> Noted:
    if counts and r.way == FLYING:
        return replace(r, way=WAITING, fails=r.fails + 1)
    if counts and r.way == ON_TRIAL:
        return replace(r, way=WAITING, strikes=r.strikes + 1, killed=True)
    return replace(r, way=WAITING)


def of_offset(ranges: Iterable[Noted], offset: int) -> tuple[Noted | None, int | None]:
    """The range that holds the offset, and where a slice that begins there has to end (None: anywhere)."""
    end: int | None = None
    for r in ranges:
        if r.first <= offset < r.next:
            return r, r.next
        if r.first > offset and (end is None or r.first < end):
            end = r.first
    return None, end


def without(ranges: Iterable[Noted], upto: int) -> tuple[Noted, ...]:
    """The ranges, or what is left of them, from this offset on."""
    return tuple(replace(r, first=max(r.first, upto)) for r in ranges if r.next > upto)


def noted(entry: Entry) -> Noted:
    """What a note says of a slice that is not acked."""
    assert entry.slice is not None
    return Noted(entry.slice.offsets[0], entry.next, entry.fails, entry.strikes, entry.killed, entry.way)


class _Waiting(NamedTuple):
    number: int
    since: float
    partition: TopicPartition
    entry: Entry


@dataclass(slots=True)
class Docket:
    """The suspects of one task that wait for their trial. `fails` is how many failures make a suspect, and how many strikes a
    conviction. Times are seconds of one clock."""

    fails: int
    ready_at: float = 0.0
    _waiting: list[_Waiting] = field(default_factory=list)
    _sequence: int = 0
    _lost: int = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def wants(self, entry: Entry) -> bool:
        return entry.fails >= self.fails or entry.strikes > 0

    def entries(self, partition: TopicPartition) -> list[Entry]:
        return [w.entry for w in self._waiting if w.partition == partition]

    def add(self, partition: TopicPartition, entry: Entry, now: float) -> list[Entry] | None:
        """Take in a suspect; answers its pieces when it had to be cut up, to stand in its place."""
        s = entry.slice
        assert s is not None
        if len(s.offsets) == 1:
            if entry.strikes >= self.fails and not s.poison:
                entry.slice = s._replace(poison=KILLS_WORKER if entry.killed else POISON)
                log.error("poison record at %s:%d:%d", s.place.topic, s.place.partition, s.offsets[0])
            self._put(partition, entry, now)
            return None
        # Without anything that got through beforehand no failure is a strike; then it takes more of them.
        if not entry.strikes and entry.fails < 2 * self.fails:
            self._put(partition, entry, now)
            return None
        parts = _pieces(s, entry, self.fails)
        for part in parts:
            self._put(partition, part, now)
        where = f"{s.place.topic}:{s.place.partition}:{s.offsets[0]}"
        log.warning("poison is looked for in %d records from %s on", len(s.offsets), where)
        return parts

    def pop(self, now: float, acks: int) -> tuple[TopicPartition, Entry]:
        """The next to be tried: whoever has least against it first, so that the innocent do not wait for the guilty. Convicts, who
        need only be written down, before all, unless even that goes wrong."""
        open_ = [w for w in self._waiting if self._may(w, now, acks)]
        found = min(open_, key=lambda w: (self._rank(w.entry), w.entry.fails, w.number))
        self._waiting.remove(found)
        return found.partition, found.entry

    def due(self, now: float, acks: int) -> bool:
        """Whether somebody may be tried now; `acks` is how many slices of the task have got through in this life."""
        return now >= self.ready_at and any(self._may(w, now, acks) for w in self._waiting)

    def _rank(self, entry: Entry) -> int:
        convict = entry.slice is not None and entry.slice.poison
        return -1 if convict and entry.strikes == self.fails else entry.strikes

    def _may(self, waiting: _Waiting, now: float, acks: int) -> bool:
        """A trial before which nothing got through proves nothing: the more of these there were, the longer the next waits."""
        e = waiting.entry
        patience = 2.0 ** min(max(0, e.fails - self.fails), 10) - 1.0
        return acks > e.acks_before or now - waiting.since >= min(patience, _PATIENCE_S)

    def rest(self, until: float) -> None:
        """No trial before then."""
        self.ready_at = max(self.ready_at, until)

    def ended(self, now: float, *, well: bool) -> None:
        """A trial is over; after one that failed the next waits, the longer the more have failed in a row."""
        self._lost = 0 if well else self._lost + 1
        if not well:
            self.rest(now + min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** min(self._lost - 1, 10)))

    def clear(self) -> None:
        self._waiting = []

    def _put(self, partition: TopicPartition, entry: Entry, now: float) -> None:
        entry.way = WAITING
        self._sequence += 1
        self._waiting.append(_Waiting(self._sequence, now, partition, entry))


def _pieces(s: Slice, entry: Entry, fails: int) -> list[Entry]:
    size = -(-len(s.offsets) // PIECES)
    parts = []
    for at in range(0, len(s.offsets), size):
        part = _part(s, slice(at, at + size))
        made = Entry(part, part.offsets[-1] + 1, part.timestamps[-1], fails, entry.acks_before)
        made.family = entry.family
        parts.append(made)
    return parts


def _part(s: Slice, piece: slice) -> Slice:
    headers = None if s.headers is None else s.headers[piece]
    return s._replace(
        offsets=s.offsets[piece], timestamps=s.timestamps[piece], values=s.values[piece], headers=headers
    )
