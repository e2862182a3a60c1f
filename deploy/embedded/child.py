"""One process that the demo runs: started, watched, restarted with a growing pause, ended by its pid.

Promises: the process ends when the demo is killed (on Linux at once, by the kernel; elsewhere at the next start);
what it prints is kept in one file of bounded size; it gets no Ctrl-C of the terminal, its end is the demo's to order.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clicktide import turns
from deploy.priority import give_way

LOG_BYTES = 8 << 20
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 10.0
STEADY_S = 30.0
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass
class Child:
    """`ready` says whether it answers; `grace_s` is how long it may take to end in order; by `nice` it gives way to others
    where the cores do not suffice for all; with `short_turns` it gets them soon (`clicktide.turns`)."""

    name: str
    command: Sequence[str]
    log: Path
    environ: Mapping[str, str]
    ready: Callable[[], bool]
    grace_s: float = 5.0
    nice: int = 0
    short_turns: bool = False
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    failures: int = field(default=0, init=False)  # since it last ran steadily
    started_at: float = field(default=0.0, init=False)
    was_ready: bool = field(default=False, init=False)
    restart_at: float | None = field(default=None, init=False)

    def start(self, now: float) -> None:
        """Starts it; `now` is a monotonic time in seconds. From the main thread only: PDEATHSIG follows threads."""
        keep_small(self.log)
        parent = os.getpid()

        def die_with_parent() -> None:
            if _libc is not None:
                _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() != parent:  # it died between fork and here
                    os._exit(1)
            give_way(self.nice)
            if self.short_turns:
                turns.short()

        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                list(self.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(self.environ),
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - the demo has one thread
            )
        self.started_at, self.restart_at, self.was_ready = now, None, False

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process else None

    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return self.process.poll() if self.process else None

    def check_ready(self) -> bool:
        if not self.was_ready and self.exit_code() is None:
            self.was_ready = self.ready()
        return self.was_ready

    def plan_restart(self, now: float) -> float:
        """Notes that it has ended; answers with the pause in seconds before it is to be started again."""
        self.failures = 1 if now - self.started_at >= STEADY_S else self.failures + 1
        pause: float = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (self.failures - 1))
        self.restart_at = now + pause
        return pause

    def last_lines(self, count: int = 6) -> list[str]:
        """The end of what it printed."""
        with contextlib.suppress(OSError), self.log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 8192))
            lines = file.read().decode("utf-8", "replace").splitlines()
            return [line for line in lines if line.strip()][-count:]
        return []

    def ask_to_end(self) -> None:
        self._signal(signal.SIGTERM)

    def end(self, wait_s: float | None = None) -> bool:
        """Waits for its end after `ask_to_end`; kills it, and what it started, when it takes too long."""
        if self.process is None:
            return True
        try:
            self.process.wait(self.grace_s if wait_s is None else wait_s)
        except subprocess.TimeoutExpired:
            in_order = False
        else:
            in_order = True
        # Its session is its own: whatever of it is left goes with it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        return in_order

    def _signal(self, sign: int) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(sign)


def keep_small(log: Path) -> None:
    """Moves a log that has grown past its size aside (one former piece is kept); its writer appends, so none is torn."""
    with contextlib.suppress(OSError):
        if log.stat().st_size > LOG_BYTES:
            former = log.with_suffix(".log.1")
            former.write_bytes(log.read_bytes())
            os.truncate(log, 0)
