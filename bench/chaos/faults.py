"""The hand that does the faults of a schedule, one after the other, and undoes each when its time is over.

Promises: it never waits, so that whoever watches the processes is not kept from it; after `heal` nothing is stopped,
locked, cut, filled or set wrong any more; a signal goes only to the very process that was looked up, known by its pid and start time.
"""

from __future__ import annotations

import signal
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from bench.chaos.disks import Disk
from bench.chaos.held import Filled, Held, Locked, Set, Stopped, send
from bench.chaos.plan import (
    AWAY,
    FAILOVER,
    FULL,
    KILL,
    LINK_KINDS,
    LOCK,
    LOSE,
    REBALANCE,
    SKEW,
    SLOW,
    STOP,
    Fault,
)
from bench.chaos.proxy import OPEN
from deploy.embedded.record import identity

_BURST_S = 0.4
_PATIENCE_S = 3.0  # a target that is just being started is waited for so long


class Site(Protocol):
    """Where faults happen: who is there, and what only the site knows how to do."""

    def pids(self, target: str) -> Sequence[int]:
        """The processes of a target; empty while it is down."""

    def lock_file(self, target: str) -> Path:
        """The SQLite file of a target of `lock`."""

    def aof(self) -> tuple[Path, int] | None:
        """The file that Redis appends to, and its size now; None while it cannot be said."""

    def lose(self, mark: tuple[Path, int]) -> int | None:
        """Kill Redis, and cut what it appended after the mark before it starts again; the bytes that were lost."""

    def turn_link(self, target: str, mode: str) -> None:
        """Put a link into a mode of `bench.chaos.proxy`."""

    def disk(self, target: str) -> Disk | None:
        """The small disk of a target's data; None where this machine lets us have none."""

    def skew(self, target: str, seconds: float) -> None:
        """Set the target's wall clock off by so much."""

    def rebalance(self, target: str, executors: int) -> bool:
        """Order it; False while it cannot be ordered."""

    def part_replica(self) -> bool:
        """Keep from Redis's replica what is written from now on; False while it is not in step."""

    def fail_over(self) -> bool:
        """Kill Redis and let its replica take over; False if that could not be."""

    def hold_down(self, target: str, *, down: bool) -> None:
        """A server that has ended is not started again as long as it is held down."""

    def settle(self) -> None:
        """Undo `part_replica`, if it was not followed by `fail_over`."""


class Hand:
    """Times are seconds of the caller's clock, from the traffic's begin. `say` gets one line a fault."""

    def __init__(self, site: Site, faults: Sequence[Fault], say: Callable[[str], None]) -> None:
        self.site, self.say = site, say
        self.waiting = sorted(faults)
        self.held: list[Held] = []
        self.done: Counter[str] = Counter()
        self.missed: list[Fault] = []
        self._later: list[tuple[float, Fault, Callable[[], str | None]]] = []

    def tick(self, now: float) -> None:
        """Ends what is over, begins what is due at `now`."""
        self.held = [held for held in self.held if not self._over(held, now)]
        for item in [item for item in self._later if item[0] <= now]:
            self._later.remove(item)
            self._finish(item[1], item[2])
        for fault in [f for f in self.waiting if f.at <= now]:
            if self._begin(fault, now):
                self.waiting.remove(fault)
            elif now > fault.at + _PATIENCE_S:
                self.waiting.remove(fault)
                self._missed(fault, "it was down, locked or cannot be done here")

    def busy(self) -> bool:
        return bool(self.waiting or self.held or self._later)

    def heal(self) -> None:
        """Undoes everything at once; what has not begun never will."""
        self.waiting, self._later = [], []
        self.site.settle()
        while self.held:
            self.held.pop().end()

    @staticmethod
    def _over(held: Held, now: float) -> bool:
        if held.step(now):
            held.end()
            return True
        return False

    def _missed(self, fault: Fault, why: str) -> None:
        self.missed.append(fault)
        self.say(f"{fault.line()}: missed, {why}")

    def _begin(self, fault: Fault, now: float) -> bool:
        """Whether it has begun; False: it is tried again at the next tick."""
        until = now + fault.seconds
        if fault.kind == LOSE:
            if (mark := self.site.aof()) is None:
                return False
            self._later.append((until, fault, partial(self._lose, mark)))
            return True
        if fault.kind == FAILOVER:
            if not self.site.part_replica():
                return False
            self._later.append((until, fault, self._fail_over))
            return True
        if fault.kind == REBALANCE:
            if not self.site.rebalance(fault.target, int(fault.amount)):
                return False
        elif fault.kind == KILL:
            if not (pids := self.site.pids(fault.target)):
                return False
            send([identity(pid) for pid in pids], signal.SIGKILL)
        else:
            held = self._hold(fault, now, until)
            if held is None:
                return False
            self.held.append(held)
        self.done[fault.kind] += 1
        self.say(fault.line())
        return True

    def _hold(self, fault: Fault, now: float, until: float) -> Held | None:
        if fault.kind in LINK_KINDS:
            self.site.turn_link(fault.target, fault.kind)
            return Set(partial(self.site.turn_link, fault.target, OPEN), until)
        if fault.kind == SKEW:
            self.site.skew(fault.target, fault.amount)
            return Set(partial(self.site.skew, fault.target, 0.0), until)
        if fault.kind == FULL:
            disk = self.site.disk(fault.target)
            return Filled(disk, until) if disk else None
        if fault.kind == LOCK:
            try:
                return Locked(self.site.lock_file(fault.target), until)
            except sqlite3.Error:
                return None  # a writer has it; the next try is a tick away
        pids = self.site.pids(fault.target)
        if fault.kind == AWAY:
            if not pids:
                return None
            self.site.hold_down(fault.target, down=True)
            send([identity(pid) for pid in pids], signal.SIGKILL)
            return Set(partial(self.site.hold_down, fault.target, down=False), until)
        assert fault.kind in {STOP, SLOW}
        return Stopped(pids, until, _BURST_S if fault.kind == SLOW else None, now) if pids else None

    def _finish(self, fault: Fault, work: Callable[[], str | None]) -> None:
        found = work()
        if found is None:
            self._missed(fault, "Redis was down, had begun another file, or had no replica left")
        else:
            self.done[fault.kind] += 1
            self.say(f"{fault.line()}{found}")

    def _lose(self, mark: tuple[Path, int]) -> str | None:
        lost = self.site.lose(mark)
        return None if lost is None else f" ({lost:,} bytes)"

    def _fail_over(self) -> str | None:
        return "" if self.site.fail_over() else None
