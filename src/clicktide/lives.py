"""Lives: what one life of a task learns from the one before, and leaves to the next, of partitions in trouble.

Promises: a partition without trouble costs one note a life; one in trouble has all that is on its way written down before it goes
out, until its commits move again; what an earlier life cut is cut there again, so that what it knew still holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from clicktide import suspects
from clicktide.flight import Entry
from clicktide.log.port import TopicPartition
from clicktide.suspects import Note, Noted, Notes


class Lives:
    """The notes of one task in its life `boot`. `run_id` is the id of the Redis that keeps them, None while it is away."""

    def __init__(self, notes: Notes, boot: str) -> None:
        self._notes, self._boot = notes, boot
        self._careful: dict[TopicPartition, Note] = {}
        self._convicts: dict[TopicPartition, list[Noted]] = {}

    def __contains__(self, partition: TopicPartition) -> bool:
        """Whether notes are taken of this partition."""
        return partition in self._careful

    def begin(
        self, positions: Mapping[TopicPartition, int], run_id: str | None, ids: Mapping[str, str]
    ) -> list[Noted]:
        """Learn what the last life knew, and leave word that this one has begun; answers what is held against records."""
        self._careful, self._convicts = {}, {}
        if run_id is None:
            return []
        found = self._notes.read(list(positions))
        notes = {
            p: suspects.inherit(found.get(p), self._boot, run_id, ids[p.topic], position)
            for p, position in positions.items()
        }
        self._notes.write(notes)
        self._careful = {p: note for p, note in notes.items() if note.lives or note.ranges}
        return [r for note in notes.values() for r in note.ranges]

    def held(self, partition: TopicPartition, offset: int) -> tuple[Noted | None, int | None]:
        """What is held against the record, and where a slice that begins with it has to end (None: anywhere)."""
        known = self._careful.get(partition)
        return suspects.of_offset(known.ranges, offset) if known else (None, None)

    def cut(self, partition: TopicPartition, upto: int) -> None:
        """The records before `upto` are in slices now, which know themselves what is held against them."""
        known = self._careful.get(partition)
        if known and known.ranges:
            self._careful[partition] = replace(known, ranges=suspects.without(known.ranges, upto))

    def trouble(self, partition: TopicPartition, run_id: str | None, topic_id: str, position: int) -> None:
        """From now on notes are taken of this partition."""
        if partition not in self._careful:
            self._careful[partition] = Note(self._boot, run_id or "", topic_id, position)

    def convicted(self, partition: TopicPartition, entry: Entry) -> None:
        """A convict is dead, but not yet committed: should this life end before, the next must not let it kill again."""
        entry.way = suspects.WAITING
        self._convicts.setdefault(partition, []).append(suspects.noted(entry))

    def write(self, partition: TopicPartition, run_id: str, open_: Iterable[Entry]) -> None:
        """Write down what is on its way and what has failed."""
        base = self._careful[partition]
        ranges = [suspects.noted(e) for e in open_ if e.fails or e.way]
        ranges += [*base.ranges, *self._convicts.get(partition, ())]
        self._notes.write({partition: replace(base, run_id=run_id, ranges=tuple(ranges))})

    def relax(self, partition: TopicPartition, position: int, open_: Iterable[Entry]) -> None:
        """The partition's commit has moved to `position`: without anything left to be held against it, the trouble is over."""
        base = self._careful[partition]
        self._convicts[partition] = [r for r in self._convicts.get(partition, ()) if r.next > position]
        if base.ranges or self._convicts[partition] or any(e.fails or e.strikes for e in open_):
            return
        self._notes.write({partition: replace(base, lives=0, ranges=())})
        del self._careful[partition]
