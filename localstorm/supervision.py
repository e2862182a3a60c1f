"""Starts the component processes, notices how they fare, restarts the ones that die.

A process that dies takes only itself along: the trees of the tuples it had been given fail at once, what waits
for it waits on, and a new one is started after a pause that doubles from 0.1 s to 30 s (and starts over once a
process has lived for a minute).
"""

from __future__ import annotations

import contextlib
import os
import textwrap
from typing import TYPE_CHECKING

from localstorm import handshake, wire
from localstorm.errors import CrashLoopError, LocalStormError
from localstorm.logs import ERROR
from localstorm.plan import child_environment, command_line
from localstorm.process import Child, describe_exit, is_alive
from localstorm.task import Task

if TYPE_CHECKING:
    from localstorm.hub import Hub

HEARTBEAT = 1.0
STARTING = 60.0
"""Seconds a process has to import its module and answer the handshake."""
STEADY = 60.0
ERROR_PATIENCE = 1.5
"""Seconds that an exception waits to be shown together with the death it caused."""
ERROR_RECENT = 10.0
LEAVING = 5.0
_STDERR_BYTES = 1 << 20


class Supervisor:
    """The life of every process of a hub."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._env = child_environment(os.environ)
        self._pid_dir = hub.settings.log_dir.absolute() / "pids"
        self._silence = hub.plan.number("topology.subprocess.timeout.secs", 30)

    def start(self) -> None:
        """Starts all processes."""
        self._pid_dir.mkdir(exist_ok=True)
        for file in self._pid_dir.iterdir():  # of runners that were killed
            if file.name.isdecimal() and not is_alive(int(file.name)):
                file.unlink(missing_ok=True)
        for task in self._hub.tasks:
            self._spawn(task)

    def kill_all(self) -> None:
        """Ends whatever is left, at once."""
        for task in self._hub.tasks:
            if task.child:
                task.child.kill()
                task.child.reap()
                (self._pid_dir / str(task.child.pid)).unlink(missing_ok=True)
                task.child = None
        with contextlib.suppress(OSError):
            self._pid_dir.rmdir()  # stays while another run uses it

    # -- births --------------------------------------------------------------------------------------

    def _spawn(self, task: Task) -> None:
        hub = self._hub
        task.restart_at = None
        task.reset(hub.now)
        command = command_line(hub.plan, task.component, hub.settings.project)
        try:
            task.child = Child(command, hub.settings.project / "src", self._env)
        except OSError as error:
            raise LocalStormError(f"{task.label} cannot be started: {command[0]}: {error.strerror}") from None
        child = task.child
        self.watch_stdout(task)
        hub.watch(child.stderr, lambda: self._read_stderr(task))
        if child.exits is not None:
            hub.watch(child.exits, lambda: self._exited(task))
        task.control.append(
            wire.encode(handshake.message(hub.plan, task.component, task.id, str(self._pid_dir)))
        )
        hub.flush(task)

    def watch_stdout(self, task: Task) -> None:
        """Reads from it again, unless somebody it feeds is flooded."""
        if task.child and not task.reading and not self._hub.gate.is_paused(task):
            self._hub.watch(task.child.stdout, lambda: self._read_stdout(task))
            task.reading = True
            task.heard = self._hub.now

    def _read_stdout(self, task: Task) -> None:
        self._hub.read(task)

    def greeted(self, task: Task, pid: int) -> None:
        """It answered the handshake; next it must show that it is initialized."""
        hub = self._hub
        task.greeted = True
        if task.spout:
            if hub.course.spouts_wanted:
                hub.tell(task, "activate", wire.ACTIVATE)
        else:
            task.control.append(wire.HEARTBEAT)
            task.heartbeat_open = True
            task.heartbeat_at = hub.now
        hub.reporter.note(task, f"started, pid {pid}")
        hub.dirty.add(task)

    def became_ready(self, task: Task) -> None:
        """It is initialized."""
        hub = self._hub
        task.ready = True
        task.tick_at = hub.now + task.tick_every
        if task.attempts:
            hub.reporter.say("INFO", task.label, f"is back, pid {task.child.pid if task.child else 0}")
        if hub.course.phase == "running" and task.spout:
            task.spout.active = True
        hub.dirty.add(task)

    # -- regular care --------------------------------------------------------------------------------

    def tend(self) -> None:
        """Everything that is done to processes by the clock."""
        hub, now = self._hub, self._hub.now
        for task in hub.tasks:
            if task.child is None:
                if task.restart_at is not None and now >= task.restart_at and hub.course.phase != "ending":
                    self._spawn(task)
            elif task.child.exits is None and task.child.exit_code() is not None:
                self._exited(task)
            else:
                self._tend_process(task, now)

    def _tend_process(self, task: Task, now: float) -> None:
        if task.error and now - task.error[0] > ERROR_PATIENCE:
            self._show_error(task)
        if self._hub.course.phase == "ending" or task.doomed:
            return
        if task.mute_since is not None:
            # It is usually on its way out; what closed its stdout by itself is of no use alive.
            if now - task.mute_since > LEAVING:
                self.doom(task, "closed its stdout")
            return
        if task.attempts and task.ready and now - task.started > STEADY:
            task.attempts = 0
        allowed = self._silence if task.ready else max(self._silence, STARTING)
        owes = not task.greeted or task.heartbeat_open or bool(task.spout and task.spout.waiting)
        # It may have answered while this process stood still.
        if owes and task.reading and now - task.heard > allowed and not self._hub.read(task):
            self.doom(task, f"silent for {allowed:g} s (topology.subprocess.timeout.secs)")
            return
        if not task.greeted or task.spout:
            return
        if not task.heartbeat_open and now - task.heartbeat_at >= min(HEARTBEAT, self._silence / 3):
            task.heartbeat_open, task.heartbeat_at = True, now
            if now - task.heard >= HEARTBEAT / 2 and not task.outbox:
                task.heard = now  # it owes an answer from now on, not from when it last had work
            task.control.append(wire.HEARTBEAT)
            self._hub.dirty.add(task)
        if task.tick and task.ready and now >= task.tick_at:
            task.tick_at = max(task.tick_at + task.tick_every, now)
            if task.tick not in task.control:
                task.control.append(task.tick)
                self._hub.dirty.add(task)

    # -- deaths --------------------------------------------------------------------------------------

    def component_logged(self, task: Task, level: int, text: str) -> None:
        """It logged something. pystorm logs a traceback before it reports it (or instead): that is one
        message to the user, not two."""
        if level >= ERROR and "Traceback" in text:
            self.component_error(task, text)
        else:
            self._hub.reporter.logged(task, level, text)

    def component_error(self, task: Task, text: str) -> None:
        """It reported an exception. Shown now if it lives on, else with its death."""
        task.error, task.error_shown = (self._hub.now, text.rstrip()), False
        self._hub.reporter.logged(task, ERROR, text, quiet=True)

    def _show_error(self, task: Task) -> None:
        if task.error and not task.error_shown:
            task.error_shown = True
            self._hub.reporter.say("ERROR", task.label, task.error[1])

    def doom(self, task: Task, reason: str) -> None:
        """Kills the process; what it says from now on does not count."""
        if task.child and not task.doomed:
            task.doomed = reason
            task.child.kill()

    def stdout_closed(self, task: Task) -> None:
        """It can say nothing more: it has ended, or has to."""
        task.mute_since = self._hub.now

    def _exited(self, task: Task) -> None:
        hub, child = self._hub, task.child
        if child is None:
            return
        while not task.doomed and hub.read(task):
            pass  # what it wrote before it ended counts
        self._read_stderr(task, last=True)
        for descriptor in (child.stdin, child.stdout, child.stderr, child.exits):
            if descriptor is not None:
                hub.unwatch(descriptor)
        code = child.reap()
        (self._pid_dir / str(child.pid)).unlink(missing_ok=True)
        task.child = None
        self._give_up_inflight(task)
        if hub.course.phase == "ending":
            self._show_error(task)
            return
        how = task.doomed or describe_exit(code)
        task.counters.restarts += 1
        pause = min(hub.settings.backoff_first * 2**task.attempts, hub.settings.backoff_most)
        task.attempts += 1
        task.restart_at = hub.now + pause
        story = textwrap.indent(self._story(task), "    ")
        hub.reporter.say(
            "ERROR", task.label, f"died ({how}, pid {child.pid}); restarting in {pause:g} s" + story
        )
        limit = hub.settings.max_restarts
        if limit is not None and task.counters.restarts > limit:
            hub.failure = CrashLoopError(
                f"{task.label} died {task.counters.restarts} times (--max-restarts {limit})"
            )
            hub.course.end_processes(hub.now)

    def _story(self, task: Task) -> str:
        """What the process said about its end."""
        if task.error and self._hub.now - task.error[0] < ERROR_RECENT:
            return "\n" + task.error[1]
        if not task.stderr_tail:
            return ""
        return "\n" + "\n".join(task.stderr_tail)

    def _give_up_inflight(self, task: Task) -> None:
        hub = self._hub
        given, task.inflight = task.inflight, {}
        if given:
            task.counters.busy += hub.now - task.busy_since
        for trees, _ in given.values():
            task.counters.failed += 1
            hub.acker.fail(trees, hub.now)
        task.control.clear()
        task.partial = None
        task.reading = task.writing = task.ready = False
        if task.spout:
            hub.acker.forget(task)
            task.spout.reset()

    def _read_stderr(self, task: Task, *, last: bool = False) -> None:
        if task.child is None:
            return
        try:
            data = os.read(task.child.stderr, _STDERR_BYTES)
        except BlockingIOError:
            data = None
        if data == b"":
            self._hub.unwatch(task.child.stderr)
        *lines, task.stderr_rest = (task.stderr_rest + (data or b"")).split(b"\n")
        if (last or len(task.stderr_rest) > _STDERR_BYTES) and task.stderr_rest:
            lines.append(task.stderr_rest)
            task.stderr_rest = b""
        for line in lines:
            text = line.decode("utf-8", "replace").rstrip()
            task.stderr_tail.append(text[:2000])
            self._hub.reporter.stderr(task, text)
