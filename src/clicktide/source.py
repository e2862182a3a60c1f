"""The source: what a spout does, without Storm. Cuts partitions into slices and sees each through to its commit.

Promises: nothing is dropped by count; a failed slice comes again after a backoff, for ever; in a slice that fails, or kills its
worker, again and again the one guilty record is found and sent to `dead` (`suspects`), while the others go on; when Redis
comes back as another server (its run id changed) reading starts again at the last commit.
"""

from __future__ import annotations

import heapq
import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from clicktide import suspects, topics
from clicktide.errors import LogError, LogUnavailable, OffsetOutOfRange
from clicktide.flight import Entry, Family, Flights
from clicktide.log.port import Batch, Headers, LogConsumer, TopicPartition
from clicktide.parse import topic_digest
from clicktide.slices import Place, Slice
from clicktide.start import EARLIEST, LATEST, start_of
from clicktide.suspects import Docket, Forgetful, Note, Noted, Notes

log = logging.getLogger(__name__)

_TOPICS_EVERY_S = 10.0
_COMMIT_EVERY_S = 0.5
_MAX_BACKOFF_S = 30.0
_BACKOFF_S = 0.5
_ASK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What the watch knows of the stores. `run_id` is Redis's at `checked_at` (s of the source's clock), None while it does
    not answer; `all_away`: no store answers, so there is nothing to do but to wait; `stopped`: a stage sends no dead letters
    just now, so that slices fail that are not to blame."""

    run_id: str | None
    checked_at: float
    all_away: bool = False
    stopped: bool = False


class Watch(Protocol):
    def seen(self) -> Seen: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """`slice_records` and `wait_s` cut slices, whichever comes first; `in_flight` slices are unacked at most, a slice that was cut
    up counting as one: so the records in memory are at most twice `in_flight * slice_records` and a read. `poison_fails`: see
    `suspects`. `start` (see `start_of`) is for partitions without a committed offset."""

    slice_records: int
    wait_s: float
    in_flight: int
    commit_delay_s: float
    poison_fails: int
    start: str = "earliest"


@dataclass(slots=True)
class _Buffer:
    """Records read and not yet cut, of one partition."""

    since: float
    offsets: list[int] = field(default_factory=list)
    timestamps: list[int] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)
    headers: list[Headers] = field(default_factory=list)
    paused: bool = False
    head: int = -1  # the offset that the partition waits for, and since when (ms)
    head_since_ms: int = 0


class Source:
    """Slices of some topics' partitions for one of `tasks` equal tasks. Not for several threads.

    `clock` answers seconds, `jitter` a number from 0 to 1, `boot` tells this life of the task from earlier ones in
    slice ids. `due(headers)` answers when (ms since the epoch, as `wall_ms` does) a record may be worked on; the records of
    a partition wait for the first that is not due, but no longer than `longest_ms(topic)`: what asks for more was not written by
    us. None: all are due at once. `notes` are what lives of a task tell each other.
    """

    def __init__(
        self,
        consumer: LogConsumer,
        names: Sequence[str],
        task: int,
        tasks: int,
        limits: Limits,
        watch: Watch,
        clock: Callable[[], float],
        jitter: Callable[[], float],
        boot: str,
        due: Callable[[Headers], int] | None = None,
        wall_ms: Callable[[], int] | None = None,
        notes: Notes | None = None,
        longest_ms: Callable[[str], int] | None = None,
    ) -> None:
        self._consumer, self._names, self._limits, self._watch = consumer, tuple(names), limits, watch
        self._task, self._tasks, self._clock, self._jitter, self._boot = task, tasks, clock, jitter, boot
        self._due, self._wall_ms = due, wall_ms or (lambda: int(clock() * 1000))
        self._longest_ms = longest_ms
        self._ids: dict[str, str] = {}
        self._flights: dict[TopicPartition, Flights] = {}
        self._buffers: dict[TopicPartition, _Buffer] = {}
        self._in_flight: dict[str, tuple[TopicPartition, Entry]] = {}
        self._again: list[tuple[float, int, TopicPartition, Entry]] = []
        self._kin: dict[TopicPartition, Family] = {}
        self._open = 0  # slices that were cut and are not acked, however many pieces they are in
        self._notes = notes or Forgetful()
        self._careful: dict[TopicPartition, Note] = {}
        self._convicts: dict[TopicPartition, list[Noted]] = {}
        self._docket = Docket(limits.poison_fails)
        self._on_trial = ""  # the slice that is, by its id
        self._turn_until: float | None = None
        self._drained = False
        self._asked_at = float("-inf")
        # As long again as a commit takes: else a life that ends by its first trial would have little to show for itself.
        self._until_committed = 2 * limits.commit_delay_s + 2 * _COMMIT_EVERY_S
        self._who = f"{','.join(names)}:{task}/{tasks}"
        self._run_id: str | None = None
        self._topics_at = self._commit_at = float("-inf")
        self._to_commit: dict[TopicPartition, int] = {}
        self._sequence = 0
        self._acks = 0
        self._failed: Counter[TopicPartition] = Counter()
        self.rewinds = 0
        self.let_go = 0  # records that wanted to wait for longer than any of ours does

    # -- what the spout calls

    def next(self, timeout_s: float) -> Slice | None:
        """The next slice to emit, None when there is none within `timeout_s`. Never raises for a broker that is away."""
        now = self._clock()
        try:
            self._watch_topics(now)
            self._watch_stores()
            self.commit()
            if self._watch.seen().all_away:
                return None
            if self._has_turn(now):
                return self._trial()
            if (again := self._repeat(now)) is not None:
                return again
            if self._open >= self._limits.in_flight:
                return None
            if (cut := self._cut(now)) is not None:
                return cut
            for batch in self._poll(timeout_s):
                self._keep(batch, self._clock())
            return self._cut(self._clock())
        except LogUnavailable as e:
            log.warning("the log is away: %s", e)
            return None

    def ack(self, slice_id: str) -> None:
        """The slice's whole tree is done. An id of an earlier life or from before a rewind is ignored."""
        found = self._in_flight.pop(slice_id, None)
        if found is not None:
            partition, entry = found
            self._acks += 1
            entry.family.left -= 1
            self._open -= not entry.family.left
            if entry.slice and entry.slice.poison:
                self._remember(partition, entry)
            self._flights[partition].acked(entry, self._clock())
            if slice_id == self._on_trial:
                self._on_trial = ""
                self._docket.ended(self._clock(), well=True)
                # At once: it must not be blamed for what comes next.
                self._note(partition)

    def fail(self, slice_id: str) -> None:
        """The slice failed or timed out: it will come again, and be tried alone when it keeps failing."""
        found = self._in_flight.pop(slice_id, None)
        if found is None:
            return
        partition, entry = found
        now = self._clock()
        self._failed[partition] += 1
        if self._blames():
            entry.fails += 1
            entry.strikes += entry.way == suspects.ON_TRIAL
        elif entry.fails < self._limits.poison_fails:
            entry.fails = min(entry.fails + 1, self._limits.poison_fails - 1)
        entry.acks_before, entry.way = self._acks, suspects.WAITING
        if slice_id == self._on_trial:
            self._on_trial = ""
            self._docket.ended(now, well=False)
        if self._docket.wants(entry):
            self._suspect(partition, entry)
        else:
            wait = min(_MAX_BACKOFF_S, _BACKOFF_S * 2 ** min(entry.fails - 1, 10)) * (
                0.5 + self._jitter() / 2
            )
            self._sequence += 1
            heapq.heappush(self._again, (now + wait, self._sequence, partition, entry))
        self._note(partition)

    def commit(self, *, force: bool = False) -> None:
        """Commit what has been acked long enough; at most every half second unless `force`."""
        now = self._clock()
        if not force and now - self._commit_at < _COMMIT_EVERY_S:
            return
        self._commit_at = now
        seen = self._watch.seen()
        if seen.run_id is None or seen.run_id != self._run_id:
            # Redis may have lost what was acked: nothing is committed before it has been asked.
            return
        for partition, flights in self._flights.items():
            if (offset := flights.committable(seen.checked_at - self._limits.commit_delay_s)) is not None:
                self._to_commit[partition] = offset
                self._relax(partition)
        if self._to_commit:
            self._consumer.commit(self._to_commit)
            self._to_commit = {}

    def positions(self) -> dict[str, dict[str, int]]:
        """By `topic:partition`: next offset done and committed, the timestamp (ms) of the last record done, and how many
        slices failed in this life of the task.

        The one method that another thread may call: the partitions are replaced as a whole, never one by one.
        """
        return {
            f"{p.topic}:{p.partition}": {
                "done": f.done,
                "committed": f.position,
                "timestamp": f.done_timestamp,
                "failed": self._failed[p],
            }
            for p, f in self._flights.items()
        }

    def idle(self) -> bool:
        """Whether nothing is on its way, waiting or read ahead."""
        return not (self._in_flight or self._again or self._docket or self._buffers)

    # -- keeping watch

    def _watch_topics(self, now: float) -> None:
        """Notice partitions added and topics made anew."""
        if now - self._topics_at < _TOPICS_EVERY_S and self._flights:
            return
        if now - self._topics_at < 1.0:
            return
        self._topics_at = now
        known = self._consumer.topics()
        ids = {name: known[name].id for name in self._names if name in known}
        mine = [
            TopicPartition(name, partition)
            for name in ids
            for partition in range(self._task, known[name].partitions, self._tasks)
        ]
        if ids != self._ids or set(mine) != set(self._flights):
            # Before anything else again if it fails: nothing of a topic made anew may be taken for the old one's.
            self._topics_at = float("-inf")
            self._begin(mine, ids)
            self._ids, self._topics_at = ids, now

    def _watch_stores(self) -> None:
        seen = self._watch.seen()
        if seen.run_id is None:
            return
        if self._run_id is not None and seen.run_id != self._run_id:
            log.warning("Redis is another server than before: reading again from the last commit")
            self.rewinds += 1
            self._begin(list(self._flights), self._ids)
        self._run_id = seen.run_id

    def _begin(self, mine: list[TopicPartition], ids: Mapping[str, str]) -> None:
        """Read these partitions from their last commit; forget all that was on its way."""
        committed = self._consumer.committed(mine)
        bounds = self._consumer.bounds(mine)
        begin = self._fresh(mine, committed, bounds)
        if begin and start_of(self._limits.start) != EARLIEST:
            # At once: a restart before the first commit must not choose again, later than now.
            self._consumer.commit(begin)
        positions: dict[TopicPartition, int] = {}
        for partition in mine:
            earliest, end = bounds[partition]
            # What came since the bounds were asked is no reason to go back to them.
            end = max(end, begin.get(partition, 0))
            offset = committed.get(partition, begin.get(partition, earliest))
            positions[partition] = min(max(offset, earliest), end)
        self._consumer.assign(positions)
        self._flights = {partition: Flights(offset) for partition, offset in positions.items()}
        self._buffers, self._in_flight, self._again, self._to_commit = {}, {}, [], {}
        self._open, self._kin = 0, {}
        self._end_turn()
        self._inherit(ids)

    def _fresh(
        self,
        mine: list[TopicPartition],
        committed: Mapping[TopicPartition, int],
        bounds: Mapping[TopicPartition, tuple[int, int]],
    ) -> dict[TopicPartition, int]:
        """Where `start` has a partition begin: those without a commit, of topics that this life has not read before.

        A partition added to a topic that is being read, and a topic made anew, are read whole: all in them is new.
        """
        new = [p for p in mine if p not in committed and p.topic not in self._ids]
        start = start_of(self._limits.start)
        if isinstance(start, int):
            return self._consumer.offsets_at(new, start) if new else {}
        return {p: bounds[p][start == LATEST] for p in new}

    # -- reading and cutting

    def _poll(self, timeout_s: float) -> list[Batch]:
        if any(len(b.offsets) >= self._limits.slice_records and not b.paused for b in self._buffers.values()):
            return []
        waiting = [b for b in self._buffers.values() if not b.paused]
        try:
            return self._consumer.poll(self._limits.slice_records, 0.001 if waiting else timeout_s)
        except OffsetOutOfRange as e:
            partition = TopicPartition(e.topic, e.partition)
            log.error("retention was faster than the topology: %s", e)
            # What was read before is still seen through: the log has lost it, the spout has not.
            self._consumer.seek(partition, e.earliest)
            return []
        except LogError as e:
            if not e.retriable:
                log.error("reading failed: %s", e)
            raise LogUnavailable(str(e)) from e

    def _keep(self, batch: Batch, now: float) -> None:
        partition = TopicPartition(batch.topic, batch.partition)
        buffer = self._buffers.get(partition)
        if buffer is None:
            buffer = self._buffers[partition] = _Buffer(since=now)
        if batch.headers is not None or buffer.headers:
            # Some records of the buffer have headers: then there is an entry for each.
            buffer.headers += [()] * (len(buffer.offsets) - len(buffer.headers))
            buffer.headers += batch.headers if batch.headers is not None else [()] * len(batch.offsets)
        buffer.offsets += batch.offsets
        buffer.timestamps += batch.timestamps
        buffer.values += batch.values

    def _cut(self, now: float) -> Slice | None:
        while self._open < self._limits.in_flight and (ripe := self._ripe(now)) is not None:
            partition, count = ripe
            entry = self._entry(partition, self._buffers[partition], count)
            if not self._docket.wants(entry):
                return self._emitted(partition, entry)
            self._suspect(partition, entry)
        return None

    def _ripe(self, now: float) -> tuple[TopicPartition, int] | None:
        for partition, buffer in self._buffers.items():
            full = len(buffer.offsets) >= self._limits.slice_records
            if full or now - buffer.since >= self._limits.wait_s:
                count = min(self._due_count(partition, buffer), self._limits.slice_records)
                if count > 0:
                    return partition, count
        return None

    def _due_count(self, partition: TopicPartition, buffer: _Buffer) -> int:
        """How many leading records are due; pauses and resumes the partition accordingly."""
        if self._due is None:
            return len(buffer.offsets)
        now_ms = self._wall_ms()
        count = next(
            (i for i, h in enumerate(buffer.headers) if self._due(h) > now_ms),
            len(buffer.offsets),
        )
        if count == 0 and self._waited_enough(partition, buffer, now_ms):
            # All of it was there when the head began to wait: the partition has been paused since.
            count = len(buffer.offsets)
            self.let_go += count
        if count == 0 and not buffer.paused:
            self._consumer.pause([partition])
            buffer.paused = True
        elif count and buffer.paused:
            self._consumer.resume([partition])
            buffer.paused = False
        return count

    def _waited_enough(self, partition: TopicPartition, buffer: _Buffer, now_ms: int) -> bool:
        if self._longest_ms is None:
            return False
        head = buffer.offsets[0]
        if head != buffer.head:
            buffer.head, buffer.head_since_ms = head, now_ms
        if now_ms - buffer.head_since_ms < self._longest_ms(partition.topic):
            return False
        log.warning("%s:%d:%d wants to wait for too long: let go", partition.topic, partition.partition, head)
        return True

    def _entry(self, partition: TopicPartition, buffer: _Buffer, count: int) -> Entry:
        """Cut at most `count` records off; fewer where an earlier life had cut, so that what it knew of them still holds."""
        topic_id = self._ids[partition.topic]
        known = self._careful.get(partition)
        before, end = suspects.of_offset(known.ranges, buffer.offsets[0]) if known else (None, None)
        if end is not None:
            count = min(count, bisect_left(buffer.offsets, end))
        made = Slice(
            "",
            Place(partition.topic, topic_id, topic_digest(topic_id), partition.partition),
            buffer.offsets[:count],
            buffer.timestamps[:count],
            buffer.values[:count],
            buffer.headers[:count] if buffer.headers else None,
        )
        if count == len(buffer.offsets):
            del self._buffers[partition]
        else:
            del (
                buffer.offsets[:count],
                buffer.timestamps[:count],
                buffer.values[:count],
                buffer.headers[:count],
            )
            # Move to the back, so that a busy partition does not starve the others.
            self._buffers[partition] = self._buffers.pop(partition)
        entry = Entry(made, made.offsets[-1] + 1, made.timestamps[-1], acks_before=self._acks)
        if known and before:
            entry.fails, entry.strikes, entry.killed = before.fails, before.strikes, before.killed
        if known and known.ranges:
            self._careful[partition] = replace(known, ranges=suspects.without(known.ranges, entry.next))
        self._flights[partition].started(entry)
        if self._docket.wants(entry):
            # Pieces of an earlier life: together they are no more than what that life had in flight.
            entry.family = self._kin.setdefault(partition, Family(0))
            entry.family.left += 1
        self._open += entry.family.left == 1
        return entry

    def _emitted(self, partition: TopicPartition, entry: Entry, way: str = suspects.FLYING) -> Slice:
        assert entry.slice is not None
        made = entry.slice = entry.slice._replace(id=self._new_id())
        entry.way = way
        self._in_flight[made.id] = (partition, entry)
        self._note(partition)
        return made

    # -- failures

    def _repeat(self, now: float) -> Slice | None:
        if not self._again or self._again[0][0] > now:
            return None
        _, _, partition, entry = heapq.heappop(self._again)
        return self._emitted(partition, entry)

    def _blames(self) -> bool:
        """Whether a failure may be a slice's fault: not while a stage is stopped, or Redis, which would say so, is away."""
        seen = self._watch.seen()
        return seen.run_id is not None and not seen.stopped

    def _suspect(self, partition: TopicPartition, entry: Entry) -> None:
        if (parts := self._docket.add(partition, entry, self._clock())) is not None:
            self._flights[partition].split(entry, parts)
        if partition not in self._careful:
            run_id, topic_id = self._run_id or "", self._ids[partition.topic]
            position = self._flights[partition].position
            self._careful[partition] = Note(self._boot, run_id, topic_id, position)

    def _has_turn(self, now: float) -> bool:
        """Whether it is the suspects' turn: nothing else goes out until it is over."""
        docket = self._docket
        if self._turn_until is None:
            if not docket.due(now, self._acks) or not self._ask(now):
                return False
            self._turn_until, self._drained = now + suspects.DRAIN_S, False
        elif now - self._asked_at >= _ASK_EVERY_S:
            self._ask(now)
        over = now >= self._turn_until or (not self._in_flight and not docket.due(now, self._acks))
        if over and not self._on_trial:
            self._end_turn()
            docket.rest(now + suspects.TURN_S)
        return self._turn_until is not None

    def _ask(self, now: float) -> bool:
        self._asked_at = now
        if self._watch.seen().run_id is None or self._notes.take_turn(self._who):
            return True
        self._docket.rest(now + _ASK_EVERY_S)
        return False

    def _end_turn(self) -> None:
        if self._turn_until is not None:
            self._turn_until = None
            self._notes.leave_turn(self._who)

    def _trial(self) -> Slice | None:
        """The next suspect, once nothing else is in flight."""
        if self._in_flight:
            return None
        if not self._drained:
            self._drained, self._turn_until = True, self._clock() + suspects.TURN_S
        partition, entry = self._docket.pop(self._clock(), self._acks)
        fair = self._acks > entry.acks_before and self._blames()
        made = self._emitted(partition, entry, suspects.ON_TRIAL if fair else suspects.FLYING)
        self._on_trial = made.id
        return made

    # -- what lives tell each other

    def _inherit(self, ids: Mapping[str, str]) -> None:
        """Learn what the last life knew, and leave word that this one has begun."""
        self._docket.clear()
        self._careful, self._convicts, self._on_trial = {}, {}, ""
        run_id = self._watch.seen().run_id
        if run_id is None:
            return
        found = self._notes.read(list(self._flights))
        notes = {
            p: suspects.inherit(found.get(p), self._boot, run_id, ids[p.topic], f.position)
            for p, f in self._flights.items()
        }
        self._notes.write(notes)
        self._careful = {p: note for p, note in notes.items() if note.lives or note.ranges}
        if any(r.fails >= self._limits.poison_fails for note in notes.values() for r in note.ranges):
            # What is not suspect gets as far as a commit before a trial may end this life.
            self._docket.rest(self._clock() + self._until_committed)

    def _remember(self, partition: TopicPartition, entry: Entry) -> None:
        """A convict is dead, but not yet committed: should this life end before, the next must not let it kill again."""
        entry.way = suspects.WAITING
        self._convicts.setdefault(partition, []).append(suspects.noted(entry))
        self._docket.rest(self._clock() + self._until_committed)

    def _note(self, partition: TopicPartition) -> None:
        """Write down what is on its way and what has failed, of a partition that had trouble; others cost nothing."""
        base = self._careful.get(partition)
        if base is None or self._run_id is None or self._watch.seen().run_id is None:
            return
        waiting = [(p, e) for _, _, p, e in self._again]
        mine = [e for p, e in (*self._in_flight.values(), *waiting) if p == partition]
        mine += self._docket.entries(partition)
        ranges = [suspects.noted(e) for e in mine if e.fails or e.way]
        ranges += [*base.ranges, *self._convicts.get(partition, ())]
        self._notes.write({partition: replace(base, run_id=self._run_id, ranges=tuple(ranges))})

    def _relax(self, partition: TopicPartition) -> None:
        """Its commits move again: notes are for partitions in trouble."""
        if (base := self._careful.get(partition)) is None:
            return
        position = self._flights[partition].position
        self._convicts[partition] = [r for r in self._convicts.get(partition, ()) if r.next > position]
        waiting = [(p, e) for _, _, p, e in self._again]
        open_ = [e for p, e in (*self._in_flight.values(), *waiting) if p == partition and e.fails]
        if base.ranges or self._convicts[partition] or open_ or self._docket.entries(partition):
            return
        self._notes.write({partition: replace(base, lives=0, ranges=())})
        del self._careful[partition]

    def _new_id(self) -> str:
        self._sequence += 1
        return f"{self._boot}-{self._sequence}"


def retry_names(prefix: str) -> list[str]:
    """The retry topics' full names."""
    return [prefix + name for name in topics.RETRY]
