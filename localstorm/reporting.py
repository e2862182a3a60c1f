"""Tells people and programs how a run goes: log files, the console, the table, the stats file.

Nothing here may stop or slow the topology: what cannot be written is left out, and said once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from localstorm.logs import LEVELS, WARNING, LogFiles
from localstorm.stats import Sampler, Snapshot, summary, write_file

if TYPE_CHECKING:
    from localstorm.task import Task

SAMPLE_EVERY = 1.0
SUMMARY_EVERY = 10.0


class Console(Protocol):
    """Where the user looks."""

    def line(self, level: str, text: str) -> None:
        """Shows a message."""

    def show(self, snapshot: Snapshot) -> None:
        """Shows how things stand; called each second."""

    def close(self) -> None:
        """Nothing more will come."""


class PlainConsole:
    """Lines on stderr: messages, and a summary every ten seconds."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._next = SUMMARY_EVERY

    def line(self, level: str, text: str) -> None:
        if self._quiet and level == "INFO":
            return
        print(text if level == "INFO" else f"{level.lower()}: {text}", file=sys.stderr, flush=True)

    def show(self, snapshot: Snapshot) -> None:
        if not self._quiet and (snapshot.uptime >= self._next or snapshot.state == "ended"):
            self._next = snapshot.uptime + SUMMARY_EVERY
            self.line("INFO", summary(snapshot))

    def close(self) -> None:
        pass


class Silence:
    """A console for tests: keeps the messages."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def line(self, level: str, text: str) -> None:
        self.lines.append((level, text))

    def show(self, snapshot: Snapshot) -> None:
        pass

    def close(self) -> None:
        pass


class Reporter:
    """All that a hub has to tell. `latest` is the newest snapshot (None before the first)."""

    def __init__(
        self,
        console: Console,
        logs: LogFiles,
        sampler: Sampler,
        stats_file: Path | None,
        *,
        sample_every: float = SAMPLE_EVERY,
    ) -> None:
        self._console = console
        self._logs = logs
        self._sampler = sampler
        self._stats_file = stats_file
        self._every = sample_every
        self._next = 0.0
        self._last = 0.0
        self.latest: Snapshot | None = None

    def say(self, level: str, who: str, text: str) -> None:
        """A message of localstorm's own, to its log and the console."""
        self._logs.write("localstorm", level, f"{who}: {text}")
        self._console.line(level, f"{who}: {text}")

    def note(self, task: Task, text: str) -> None:
        """A message of localstorm's own, to the task's log alone."""
        self._logs.write(log_name(task), "INFO", f"localstorm: {text}")

    def once(self, task: Task, text: str) -> None:
        """A warning about a task, the first time only."""
        if text not in task.warned:
            task.warned.add(text)
            self.say("WARNING", task.label, text)

    def logged(self, task: Task, level: int, text: str, *, quiet: bool = False) -> None:
        """A component's own log entry; from WARNING on also its first line on the console."""
        level = min(max(level, 0), len(LEVELS) - 1)
        self._logs.write(log_name(task), LEVELS[level], text.rstrip())
        if level >= WARNING and not quiet:
            first, *more = text.strip().splitlines() or [""]
            rest = f" (+{len(more)} lines in {self._logs.path(log_name(task)).name})" if more else ""
            self._console.line(LEVELS[level], f"{task.label}: {first}{rest}")

    def stderr(self, task: Task, text: str) -> None:
        """A line that a component wrote to its stderr."""
        self._logs.write(log_name(task), "STDERR", text)

    def turn(self, tasks: Sequence[Task], trees: int, state: str, now: float) -> None:
        """Called often; takes a snapshot each second."""
        self._last = now
        if now >= self._next:
            self._next = now + self._every
            self._publish(self._sampler.sample(tasks, trees, state, now))

    def close(self, tasks: Sequence[Task]) -> None:
        """The last snapshot, and no more."""
        self._publish(self._sampler.sample(tasks, 0, "ended", self._last))
        self._console.close()
        self._logs.close()

    def _publish(self, snapshot: Snapshot) -> None:
        self.latest = snapshot
        self._console.show(snapshot)
        if self._stats_file:
            try:
                write_file(self._stats_file, snapshot)
            except OSError as error:
                self.say("WARNING", "localstorm", f"stats file {self._stats_file}: {error.strerror}")
                self._stats_file = None


def log_name(task: Task) -> str:
    """The name of a task's log file within its run."""
    return f"{task.name}-{task.id}"
