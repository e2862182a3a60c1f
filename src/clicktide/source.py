"""The source: what a spout does, without Storm. Cuts partitions into slices and sees each through to its commit.

Promises: nothing is dropped by count; a failed slice comes again after a backoff, for ever; in a slice that fails, or kills its
worker, again and again the one guilty record is found and sent to `dead` (`suspects`), while the others go on; when Redis
comes back as another server (its run id changed) reading starts again at the last commit.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from clicktide import assignment, suspects, topics
from clicktide.buffers import Buffers
from clicktide.errors import LogUnavailable
from clicktide.fleet import Fleet
from clicktide.flight import Entry
from clicktide.holds import Holds
from clicktide.lives import Lives
from clicktide.log.port import Headers, LogConsumer, TopicPartition
from clicktide.parse import topic_digest
from clicktide.repeats import Repeats
from clicktide.seen import Watch
from clicktide.slices import Place, Slice
from clicktide.suspects import Forgetful, Notes
from clicktide.trials import Trials

log = logging.getLogger(__name__)

_TOPICS_EVERY_S = 10.0
_COMMIT_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Limits:
    """`slice_records`, `slice_bytes` and `wait_s` cut slices, whichever comes first; `in_flight` slices are unacked at most, a slice
    that was cut up counting as one: so the records in memory are at most twice `in_flight` slices and a read, which is about a slice.
    `poison_fails`: see `suspects`. `start` (see `start_of`) is for partitions without a committed offset."""

    slice_records: int
    wait_s: float
    in_flight: int
    commit_delay_s: float
    poison_fails: int
    start: str = "earliest"
    slice_bytes: int = 1 << 20


class Source:
    """Slices of some topics' partitions for one of `tasks` equal tasks. Not for several threads.

    `clock` answers seconds, `jitter` a number from 0 to 1, `boot` tells this life of the task from earlier ones in
    slice ids. `due(headers)` answers when (ms since the epoch, as `wall_ms` does) a record may be worked on; the records of
    a partition wait for the first that is not due, but no longer than `longest_ms(topic)`: what asks for more was not written by
    us. None: all are due at once. `notes` are what lives of a task tell each other. `holds` keep what is due, too, while its store is
    away.
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
        holds: Holds | None = None,
    ) -> None:
        self._consumer, self._names, self._limits, self._watch = consumer, tuple(names), limits, watch
        self._task, self._tasks, self._clock, self._jitter, self._boot = task, tasks, clock, jitter, boot
        wall_ms = wall_ms or (lambda: int(clock() * 1000))
        self._buffers = Buffers(
            consumer,
            limits.slice_records,
            limits.slice_bytes,
            limits.wait_s,
            clock,
            due,
            wall_ms,
            longest_ms,
            holds,
        )
        self._ids: dict[str, str] = {}
        self._fleet = Fleet()
        self._repeats = Repeats()
        notes = notes or Forgetful()
        self._lives = Lives(notes, boot)
        self._trials = Trials(notes, f"{','.join(names)}:{task}/{tasks}", limits.poison_fails)
        # As long again as a commit takes: else a life that ends by its first trial would have little to show for itself.
        self._until_committed = 2 * limits.commit_delay_s + 2 * _COMMIT_EVERY_S
        self._run_id: str | None = None
        self._topics_at = self._commit_at = float("-inf")
        self._to_commit: dict[TopicPartition, int] = {}
        self._sequence = 0
        self._acks = 0
        self._failed: Counter[TopicPartition] = Counter()
        self.rewinds = 0

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
            redis = self._watch.seen().run_id is not None
            if self._trials.has_turn(now, self._acks, in_flight=self._fleet.in_flight > 0, redis=redis):
                return self._trial()
            if (again := self._repeats.pop(now)) is not None:
                return self._emitted(*again)
            if self._fleet.open >= self._limits.in_flight:
                return None
            if (cut := self._cut(now)) is not None:
                return cut
            self._buffers.read(timeout_s)
            return self._cut(self._clock())
        except LogUnavailable as e:
            log.warning("the log is away: %s", e)
            return None

    def ack(self, slice_id: str) -> None:
        """The slice's whole tree is done. An id of an earlier life or from before a rewind is ignored."""
        found = self._fleet.landed(slice_id)
        if found is not None:
            partition, entry = found
            self._acks += 1
            if entry.slice and entry.slice.poison:
                self._lives.convicted(partition, entry)
                self._trials.docket.rest(self._clock() + self._until_committed)
            self._fleet.acked(partition, entry, self._clock())
            if self._trials.ended(slice_id, self._clock(), well=True):
                # At once: it must not be blamed for what comes next.
                self._note(partition)

    def fail(self, slice_id: str) -> None:
        """The slice failed or timed out: it will come again, and be tried alone when it keeps failing."""
        found = self._fleet.landed(slice_id)
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
        self._trials.ended(slice_id, now, well=False)
        if self._trials.docket.wants(entry):
            self._suspect(partition, entry)
        else:
            self._repeats.put(partition, entry, now, self._jitter())
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
        for partition, offset in self._fleet.committable(seen.checked_at - self._limits.commit_delay_s):
            self._to_commit[partition] = offset
            if partition in self._lives:
                self._lives.relax(partition, offset, self._under_way(partition))
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
            for p, f in self._fleet.flights.items()
        }

    @property
    def let_go(self) -> int:
        """How many records wanted to wait for longer than any of ours does."""
        return self._buffers.let_go

    def idle(self) -> bool:
        """Whether nothing is on its way, waiting or read ahead."""
        return not (self._fleet.in_flight or self._repeats or self._trials.docket or self._buffers)

    # -- keeping watch

    def _watch_topics(self, now: float) -> None:
        """Notice partitions added and topics made anew."""
        if now - self._topics_at < _TOPICS_EVERY_S and self._fleet.flights:
            return
        if now - self._topics_at < 1.0:
            return
        self._topics_at = now
        mine, ids = assignment.owned(self._consumer.topics(), self._names, self._task, self._tasks)
        if ids != self._ids or set(mine) != set(self._fleet.flights):
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
            self._begin(list(self._fleet.flights), self._ids)
        self._run_id = seen.run_id

    def _begin(self, mine: list[TopicPartition], ids: Mapping[str, str]) -> None:
        """Read these partitions from their last commit; forget all that was on its way."""
        positions = assignment.begin(self._consumer, mine, self._limits.start, self._ids)
        self._consumer.assign(positions)
        self._fleet.begin(positions)
        self._buffers.clear()
        self._repeats.clear()
        self._to_commit = {}
        self._trials.end_turn()
        self._trials.clear()
        held = self._lives.begin(positions, self._watch.seen().run_id, ids)
        if any(r.fails >= self._limits.poison_fails for r in held):
            # What is not suspect gets as far as a commit before a trial may end this life.
            self._trials.docket.rest(self._clock() + self._until_committed)

    # -- cutting

    def _cut(self, now: float) -> Slice | None:
        while self._fleet.open < self._limits.in_flight and (ripe := self._buffers.ripe(now)) is not None:
            partition, count = ripe
            entry = self._entry(partition, count)
            if not self._trials.docket.wants(entry):
                return self._emitted(partition, entry)
            self._suspect(partition, entry)
        return None

    def _entry(self, partition: TopicPartition, count: int) -> Entry:
        """Cut at most `count` records off; fewer where an earlier life had cut, so that what it knew of them still holds."""
        topic_id = self._ids[partition.topic]
        before, end = self._lives.held(partition, self._buffers.first(partition))
        taken = self._buffers.take(partition, count, end)
        place = Place(partition.topic, topic_id, topic_digest(topic_id), partition.partition)
        entry = Entry(
            Slice("", place, *taken), taken.offsets[-1] + 1, taken.timestamps[-1], acks_before=self._acks
        )
        if before:
            entry.fails, entry.strikes, entry.killed = before.fails, before.strikes, before.killed
        self._lives.cut(partition, entry.next)
        # Pieces of an earlier life: together they are no more than what that life had in flight.
        self._fleet.started(partition, entry, kin=self._trials.docket.wants(entry))
        return entry

    def _emitted(self, partition: TopicPartition, entry: Entry, way: str = suspects.FLYING) -> Slice:
        assert entry.slice is not None
        made = entry.slice = entry.slice._replace(id=self._new_id())
        entry.way = way
        self._fleet.departed(partition, entry)
        self._note(partition)
        return made

    # -- failures

    def _blames(self) -> bool:
        """Whether a failure may be a slice's fault: not while a stage is stopped, or Redis, which would say so, is away."""
        seen = self._watch.seen()
        return seen.run_id is not None and not seen.stopped

    def _suspect(self, partition: TopicPartition, entry: Entry) -> None:
        if (parts := self._trials.docket.add(partition, entry, self._clock())) is not None:
            self._fleet.flights[partition].split(entry, parts)
        position = self._fleet.flights[partition].position
        self._lives.trouble(partition, self._run_id, self._ids[partition.topic], position)

    def _trial(self) -> Slice | None:
        """The next suspect, once nothing else is in flight."""
        if self._fleet.in_flight:
            return None
        partition, entry = self._trials.next(self._clock(), self._acks)
        fair = self._acks > entry.acks_before and self._blames()
        made = self._emitted(partition, entry, suspects.ON_TRIAL if fair else suspects.FLYING)
        self._trials.began(made.id)
        return made

    def _note(self, partition: TopicPartition) -> None:
        """For the next life, should this one end here; a partition without trouble costs nothing."""
        if partition in self._lives and self._run_id is not None and self._watch.seen().run_id is not None:
            self._lives.write(partition, self._run_id, self._under_way(partition))

    def _under_way(self, partition: TopicPartition) -> list[Entry]:
        """What was cut and is not acked."""
        return [
            *self._fleet.entries(partition),
            *self._repeats.entries(partition),
            *self._trials.docket.entries(partition),
        ]

    def _new_id(self) -> str:
        self._sequence += 1
        return f"{self._boot}-{self._sequence}"


def retry_names(prefix: str) -> list[str]:
    """The retry topics' full names."""
    return [prefix + name for name in topics.RETRY]
