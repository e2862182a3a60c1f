"""Faults that last: each does what is due at a `step`, and undoes itself at its `end`."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.chaos.disks import Disk
from deploy.embedded.record import alive, identity


class Held:
    """One fault that lasts: `step(now)` does what is due, and answers whether it is over."""

    def __init__(self, until: float) -> None:
        self.until = until

    def step(self, now: float) -> bool:
        return now >= self.until

    def end(self) -> None: ...


class Stopped(Held):
    """Processes stopped; with `burst_s` stopped and let go in turns of so long."""

    def __init__(self, pids: Sequence[int], until: float, burst_s: float | None, now: float) -> None:
        super().__init__(until)
        self.known = [identity(pid) for pid in pids]
        self.burst_s, self.turn_at, self.stopped = burst_s, now, False
        self._turn(now)

    def _turn(self, now: float) -> None:
        self.stopped = not self.stopped
        self.turn_at = now + self.burst_s if self.burst_s else self.until
        send(self.known, signal.SIGSTOP if self.stopped else signal.SIGCONT)

    def step(self, now: float) -> bool:
        if now < self.until and now >= self.turn_at:
            self._turn(now)
        return now >= self.until

    def end(self) -> None:
        send(self.known, signal.SIGCONT)


class Locked(Held):
    """The write lock of a SQLite file. Raises `sqlite3.Error` when another has it."""

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


class Filled(Held):
    """A disk without a free byte: what others delete meanwhile is filled again."""

    def __init__(self, disk: Disk, until: float) -> None:
        super().__init__(until)
        self.disk = disk
        disk.fill()

    def step(self, now: float) -> bool:
        if now < self.until:
            self.disk.fill()
        return now >= self.until

    def end(self) -> None:
        self.disk.empty()


class Set(Held):
    """Something that was set, and is set back at the end."""

    def __init__(self, undo: Callable[[], None], until: float) -> None:
        super().__init__(until)
        self.end = undo  # type: ignore[method-assign]


def send(known: Sequence[dict[str, Any]], number: int) -> None:
    """A signal to the very processes that were looked up."""
    for process in known:
        if alive(process):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process["pid"]), number)
