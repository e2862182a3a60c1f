"""The hand that does the faults of a schedule, one after the other, and undoes each when its time is over.

Promises: it never waits, so that whoever watches the processes is not kept from it; after `heal` nothing is stopped or
locked any more; a signal goes only to the very process that was looked up, known by its pid and start time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from bench.chaos.plan import KILL, LOCK, LOSE, SLOW, STOP, Fault
from deploy.embedded.record import alive, identity

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


class _Held:
    """One fault that lasts: `step(now)` does what is due, and answers whether it is over."""

    def __init__(self, until: float) -> None:
        self.until = until

    def step(self, now: float) -> bool:
        return now >= self.until

    def end(self) -> None: ...


class _Stopped(_Held):
    def __init__(self, pids: Sequence[int], until: float, burst_s: float | None, now: float) -> None:
        super().__init__(until)
        self.known = [identity(pid) for pid in pids]
        self.burst_s, self.turn_at, self.stopped = burst_s, now, False
        self._turn(now)

    def _turn(self, now: float) -> None:
        self.stopped = not self.stopped
        self.turn_at = now + self.burst_s if self.burst_s else self.until
        _signal(self.known, signal.SIGSTOP if self.stopped else signal.SIGCONT)

    def step(self, now: float) -> bool:
        if now < self.until and now >= self.turn_at:
            self._turn(now)
        return now >= self.until

    def end(self) -> None:
        _signal(self.known, signal.SIGCONT)


class _Locked(_Held):
    def __init__(self, file: Path, until: float) -> None:
        super().__init__(until)
        self.link = sqlite3.connect(file, timeout=0, isolation_level=None)
        try:
            self.link.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error:
            self.link.close()
            raise

    def end(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self.link.execute("ROLLBACK")
        self.link.close()


def _signal(known: Sequence[dict[str, Any]], number: int) -> None:
    for process in known:
        if alive(process):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process["pid"]), number)


class Hand:
    """Times are seconds of the caller's clock, from the traffic's begin. `say` gets one line a fault."""

    def __init__(self, site: Site, faults: Sequence[Fault], say: Callable[[str], None]) -> None:
        self.site, self.say = site, say
        self.waiting = sorted(faults)
        self.held: list[_Held] = []
        self.done: Counter[str] = Counter()
        self.missed: list[Fault] = []
        self._losing: list[tuple[float, Fault, tuple[Path, int]]] = []

    def tick(self, now: float) -> None:
        """Ends what is over, begins what is due at `now`."""
        self.held = [held for held in self.held if not self._over(held, now)]
        for due, fault, mark in [item for item in self._losing if item[0] <= now]:
            self._losing.remove((due, fault, mark))
            self._lose(fault, mark)
        for fault in [f for f in self.waiting if f.at <= now]:
            if self._begin(fault, now):
                self.waiting.remove(fault)
            elif now > fault.at + _PATIENCE_S:
                self.waiting.remove(fault)
                self.missed.append(fault)
                self.say(f"{fault.line()}: missed, it was down or locked")

    def busy(self) -> bool:
        return bool(self.waiting or self.held or self._losing)

    def heal(self) -> None:
        """Undoes everything at once; what has not begun never will."""
        self.waiting, self._losing = [], []
        while self.held:
            self.held.pop().end()

    @staticmethod
    def _over(held: _Held, now: float) -> bool:
        if held.step(now):
            held.end()
            return True
        return False

    def _begin(self, fault: Fault, now: float) -> bool:
        if fault.kind == LOSE:
            if (mark := self.site.aof()) is None:
                return False
            self._losing.append((now + fault.seconds, fault, mark))
            return True
        if fault.kind == LOCK:
            try:
                self.held.append(_Locked(self.site.lock_file(fault.target), now + fault.seconds))
            except sqlite3.Error:
                return False  # a writer has it; the next try is a tick away
        else:
            pids = self.site.pids(fault.target)
            if not pids:
                return False
            if fault.kind == KILL:
                _signal([identity(pid) for pid in pids], signal.SIGKILL)
            elif fault.kind in {STOP, SLOW}:
                burst = _BURST_S if fault.kind == SLOW else None
                self.held.append(_Stopped(pids, now + fault.seconds, burst, now))
        self.done[fault.kind] += 1
        self.say(fault.line())
        return True

    def _lose(self, fault: Fault, mark: tuple[Path, int]) -> None:
        lost = self.site.lose(mark)
        if lost is None:
            self.missed.append(fault)
            self.say(f"{fault.line()}: missed, Redis was down or had begun another file")
        else:
            self.done[LOSE] += 1
            self.say(f"{fault.line()} ({lost:,} bytes)")
