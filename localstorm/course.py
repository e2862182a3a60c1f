"""The course of a run: starting, running, draining, ending, ended.

Spouts are active only while it is running. Draining lasts until nothing is on its way, or as long as `--drain`
allows. Ending closes the processes' stdin, which ends a component of the multilang protocol; who stays is
terminated after three seconds, and killed after two more.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from localstorm import wire

if TYPE_CHECKING:
    from localstorm.hub import Hub

CLOSING, TERMINATING = 3.0, 2.0
"""Seconds that a process gets to end by itself, then to end when told."""


class Course:
    """Where a run stands."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.phase = "starting"
        self._stop_asked = 0
        self._stop_at: float | None = None
        self._deadline = 0.0
        self._terminated = False

    @property
    def ended(self) -> bool:
        """Whether no process is left and none will be started."""
        return self.phase == "ended"

    @property
    def spouts_wanted(self) -> bool:
        """Whether a spout that comes up is to be activated."""
        return self.phase in ("starting", "running")

    def stop(self) -> None:
        """Asks for the end: once to drain first, twice to end at once. Safe in a signal handler."""
        self._stop_asked += 1
        self._hub.wake()

    def advance(self, now: float) -> None:
        """Goes on to the next phase when it is time; call it often."""
        hub = self._hub
        if self.phase == "starting" and all(task.ready or task.counters.restarts for task in hub.tasks):
            self.phase = "running"
            for task in hub.spouts:
                assert task.spout
                task.spout.active = task.ready
            hub.reporter.say("INFO", "localstorm", f"{hub.plan.name} is running: {len(hub.tasks)} tasks")
            if hub.settings.duration > 0:
                self._stop_at = now + hub.settings.duration
        if self._stop_at is not None and now >= self._stop_at and not self._stop_asked:
            self._stop_asked = 1
        if self._stop_asked and self.phase in ("starting", "running"):
            self._deactivate(now)
        if self.phase == "draining" and (self._drained() or now >= self._deadline or self._stop_asked > 1):
            self.end_processes(now)
        if self.phase == "ending":
            self._see_off(now)

    def _deactivate(self, now: float) -> None:
        hub = self._hub
        self.phase = "draining"
        self._deadline = now + hub.settings.drain
        for task in hub.spouts:
            assert task.spout
            if task.child and task.ready:
                hub.tell(task, "deactivate", wire.DEACTIVATE)
            task.spout.active = False

    def _drained(self) -> bool:
        return not len(self._hub.acker) and not any(
            task.outbox or task.inflight or (task.spout and task.child and task.spout.waiting)
            for task in self._hub.tasks
        )

    def end_processes(self, now: float) -> None:
        """Lets the processes go, and says what they had not finished."""
        hub = self._hub
        left = len(hub.acker)
        waiting = sum(len(task.outbox) + len(task.inflight) for task in hub.tasks)
        if left or waiting:
            hub.reporter.say(
                "WARNING", "localstorm", f"left un-acked: {left} spout tuples ({waiting} tuples on their way)"
            )
        self.phase = "ending"
        self._deadline = now + CLOSING
        for task in hub.tasks:
            if task.child:
                hub.unwatch(task.child.stdin)
                task.writing = True  # nothing may be written to the closed pipe
                task.child.close_stdin()

    def _see_off(self, now: float) -> None:
        alive = [task for task in self._hub.tasks if task.child]
        if not alive:
            self.phase = "ended"
        elif now >= self._deadline:
            number = signal.SIGKILL if self._terminated else signal.SIGTERM
            for task in alive:
                assert task.child
                task.child.signal(number)
            self._terminated = True
            self._deadline = now + TERMINATING
