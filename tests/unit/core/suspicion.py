"""A worker with some source tasks, in simulated time: poison kills it, and so does whatever the test says.

Records are worked on one slice at a time, some hundredths of a second each; the worker comes back after some seconds, with
all tasks in a new life. Notes are kept as Redis keeps them, and may be away.
"""

from __future__ import annotations

import dataclasses
import random

from unit.core.rig import TOPIC, Rig

from clicktide.log.port import TopicPartition
from clicktide.slices import Slice
from clicktide.source import Limits, Source
from clicktide.suspects import Note

LIMITS = Limits(slice_records=50, wait_s=0.0, in_flight=4, commit_delay_s=5.0, poison_fails=3)


class MemoryNotes:
    """`suspects.Notes` in memory; `away` is what a Redis that does not answer is like."""

    def __init__(self) -> None:
        self.kept: dict[TopicPartition, Note] = {}
        self.holder: str | None = None
        self.away = False

    def read(self, partitions):
        return {} if self.away else {p: self.kept[p] for p in partitions if p in self.kept}

    def write(self, notes):
        if not self.away:
            self.kept.update(notes)

    def take_turn(self, who):
        if self.away or self.holder not in (None, who):
            return False
        self.holder = who
        return True

    def leave_turn(self, who):
        if self.holder == who:
            self.holder = None


class Worker:
    """`poison`: (partition, offset) of the records that kill; `kill_every_s`: how often, about, it is killed besides;
    `wait_s`: the records are of a retry topic, each due so long after it was written."""

    def __init__(
        self,
        seed: int,
        *,
        tasks: int = 1,
        partitions: int = 2,
        poison=(),
        kill_every_s: float | None = None,
        limits: Limits = LIMITS,
        restart_s: float = 7.0,
        raises: bool = False,
        wait_s: float | None = None,
    ) -> None:
        self.rig, self.random = Rig(None, partitions), random.Random(seed)
        self.partitions, self.tasks, self.poison = partitions, tasks, set(poison)
        self.kill_every_s, self.limits, self.restart_s, self.raises = kill_every_s, limits, restart_s, raises
        self.wait_s = wait_s
        self.notes = MemoryNotes()
        self.written = [0] * partitions
        self.done: list[dict[int, float]] = [{} for _ in range(partitions)]
        self.dead: dict[tuple[int, int], str] = {}
        self.deaths = 0
        self.began = self.rig.clock()
        self.start()

    def start(self) -> None:
        self.sources = [self.source(i) for i in range(self.tasks)]
        self.queue: list[tuple[Source, Slice]] = []
        self.kill_at = self._next_kill()

    def source(self, task: int) -> Source:
        self.rig._lives += 1
        return Source(
            self.rig.log.consumer("group"),
            [TOPIC],
            task,
            self.tasks,
            self.limits,
            self.rig.watch,
            self.rig.clock,
            self.random.random,
            f"boot{self.rig._lives}",
            None if self.wait_s is None else due,
            notes=self.notes,
        )

    def write(self, count: int, partition: int) -> None:
        headers = ()
        if self.wait_s is not None:
            headers = (("not-before", b"%d" % int((self.rig.clock() + self.wait_s) * 1000)),)
        self.rig.write(count, partition, headers)
        self.written[partition] += count

    def run(self, seconds: float, rate: int = 0) -> None:
        """`rate` records a second besides, spread over the partitions, until all is done or the time is over."""
        end, fed = self.rig.clock() + seconds, self.rig.clock()
        while self.rig.clock() < end and (rate or not self.over()):
            for source in self.sources:
                while (found := source.next(0.0)) is not None:
                    self.queue.append((source, found))
            if rate and self.rig.clock() - fed >= 1.0:
                fed += 1.0
                for partition in range(self.partitions):
                    self.write(rate, partition)
            self.work()

    def work(self) -> None:
        clock = self.rig.clock
        if not self.queue:
            clock.pass_(0.1)
        else:
            at = self.random.randrange(len(self.queue))
            source, found = self.queue.pop(at)
            clock.pass_(self.random.uniform(0.01, 0.08))
            partition = found.place.partition
            if found.poison:
                assert len(found.offsets) == 1
                self.dead[partition, found.offsets[0]] = found.poison
                source.ack(found.id)
            elif self.poison & {(partition, o) for o in found.offsets}:
                if self.raises:
                    source.fail(found.id)
                else:
                    self.die()
                return
            else:
                for offset in found.offsets:
                    self.done[partition].setdefault(offset, clock() - self.began)
                if self.random.random() < 0.98:  # else the ack is lost: the slice times out
                    source.ack(found.id)
                else:
                    source.fail(found.id)
        if clock() >= self.kill_at:
            self.die()

    def die(self) -> None:
        self.deaths += 1
        self.rig.clock.pass_(self.random.uniform(0.7, 1.3) * self.restart_s)
        self.start()

    def over(self) -> bool:
        ends = [self.rig.committed(p) or 0 for p in range(self.partitions)]
        return ends == self.written

    def _next_kill(self) -> float:
        if self.kill_every_s is None:
            return float("inf")
        return self.rig.clock() + self.random.expovariate(1 / self.kill_every_s)


def due(headers) -> int:
    return int(dict(headers)["not-before"])


def limits(**changes):
    return dataclasses.replace(LIMITS, **changes)
