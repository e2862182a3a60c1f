"""The source under anything: whatever fails, restarts and is lost in whatever order, no record is lost and no commit
passes a record whose effects are not there.

The model: `applied` are the offsets whose effects Redis has, with the time they came in. Redis may lose its last second when
it restarts (append-only file, synced every second), and the watch notices only when it looks.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from unit.core import rig
from unit.core.rig import Rig

from clicktide.errors import LogUnavailable

PARTITIONS = 2
LOST_S = 1.0
# Of the rig's records three fill a slice by their bytes, and four by their number.
LIMITS = dataclasses.replace(rig.LIMITS, slice_bytes=21)


class SourceMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="clicktide-source-"))
        self.rig = Rig(self.folder, PARTITIONS)
        self.written = [0] * PARTITIONS
        self.applied: list[dict[int, float]] = [{} for _ in range(PARTITIONS)]
        self.delivered: list[set[int]] = [set() for _ in range(PARTITIONS)]
        self.redis = 1
        self.look()
        self.restart()

    def teardown(self) -> None:
        self.drain()
        shutil.rmtree(self.folder)

    # -- what may happen

    @rule(count=st.integers(1, 9), partition=st.integers(0, PARTITIONS - 1))
    def write(self, count, partition):
        self.rig.write(count, partition)
        self.written[partition] += count

    @rule()
    def restart(self):
        self.source = self.rig.source(limits=LIMITS)
        self.in_flight = {}

    @rule(times=st.integers(1, 4))
    def emit(self, times):
        for _ in range(times):
            if (found := self.source.next(0.0)) is not None:
                assert found.id not in self.in_flight
                self.in_flight[found.id] = found
                self.delivered[found.place.partition].update(found.offsets)

    @rule(partition=st.integers(0, PARTITIONS - 1))
    def go_well(self, partition):
        """What mostly happens: something is written, read, applied and acked, and Redis has been asked since."""
        self.write(3, partition)
        self.emit(3)
        for found in list(self.in_flight.values()):
            self._apply(found)
            self._ack(found)
        self.look()

    @rule(seconds=st.sampled_from([0.0, 0.6, 5.0, 6.0]), look=st.booleans(), loses=st.booleans())
    def commit_and_lose(self, seconds, look, loses):
        """The moment that matters: a commit, and Redis dies before or after it."""
        if not look and loses:
            self.redis_restarts(loses=True)
        self.rig.clock.pass_(seconds)
        if look:
            self.look()
        self.commit()
        self.no_commit_passes_what_is_not_there()
        if look and loses:
            self.redis_restarts(loses=True)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), ack=st.booleans())
    def apply(self, data, ack):
        found = self.pick(data)
        self._apply(found)
        if ack:
            self._ack(found)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), done_before=st.booleans())
    def fail(self, data, done_before):
        found = self.pick(data)
        if done_before:  # the work was done, then the ack was lost
            self._apply(found)
        del self.in_flight[found.id]
        self.source.fail(found.id)

    @rule(seconds=st.sampled_from([0.1, 0.6, 2.0, 5.0, 11.0]))
    def pass_time(self, seconds):
        self.rig.clock.pass_(seconds)

    @rule()
    def look(self):
        """The watch asks Redis now."""
        self.rig.watch.run_id = f"redis-{self.redis}"
        self.rig.watch.checked_at = self.rig.clock()

    @rule(loses=st.booleans())
    def redis_restarts(self, loses):
        self.redis += 1
        if loses:
            kept = self.rig.clock() - LOST_S
            for partition in range(PARTITIONS):
                self.applied[partition] = {o: t for o, t in self.applied[partition].items() if t <= kept}

    @rule(
        call=st.sampled_from(["poll", "commit", "topics", "committed", "bounds", "assign"]),
        after=st.booleans(),
    )
    def broker_hiccups(self, call, after):
        after = after and call in ("commit", "assign")
        self.rig.log.fail_next(call, LogUnavailable("away"), after_write=after)

    @rule()
    def commit(self):
        try:
            self.source.commit(force=True)
        except LogUnavailable:
            pass

    # -- what holds

    @invariant()
    def no_commit_passes_what_is_not_there(self):
        for partition in range(PARTITIONS):
            for offset in range(self.rig.committed(partition) or 0):
                assert offset in self.applied[partition], (partition, offset)

    def drain(self):
        """Once all is well, everything is delivered and committed."""
        self.rig.log.heal()
        ends = None
        for _ in range(60):
            self.look()
            self.emit(10)
            for found in list(self.in_flight.values()):
                self._apply(found)
                self._ack(found)
            self.rig.clock.pass_(6.0)
            ends = [self.rig.committed(p) or 0 for p in range(PARTITIONS)]
            if ends == self.written:
                break
        assert ends == self.written
        assert [len(d) for d in self.delivered] == self.written
        self.no_commit_passes_what_is_not_there()

    def pick(self, data):
        return self.in_flight[data.draw(st.sampled_from(sorted(self.in_flight)))]

    def _apply(self, found):
        there = self.applied[found.place.partition]
        for offset in found.offsets:
            there.setdefault(offset, self.rig.clock())

    def _ack(self, found):
        del self.in_flight[found.id]
        self.source.ack(found.id)


SourceMachine.TestCase.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestSource = SourceMachine.TestCase
