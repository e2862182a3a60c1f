"""Moves tuples between component processes and tracks their trees: Storm's workers and ackers in one loop.

Promises: every tuple reaches the tasks its groupings choose, in the order its emitter wrote it; a spout hears
of each of its trees once; no read or write blocks; what waits in memory is bounded (see backpressure.py).
One thread runs it; other threads may call `wake` alone.
"""

import contextlib
import os
import selectors
import time
from collections.abc import Callable

from localstorm import wire
from localstorm.acker import Acker, Tree
from localstorm.backpressure import Gate
from localstorm.commands import Commands
from localstorm.course import Course
from localstorm.errors import LocalStormError, ProtocolError
from localstorm.process import keep_freed_memory
from localstorm.reporting import Reporter
from localstorm.settings import Settings
from localstorm.supervision import Supervisor
from localstorm.task import Task
from localstorm.topology import build_tasks

_READ = 1 << 20
_BATCH_BYTES = 256 * 1024
_BATCH_PARTS = 300
_JOIN_BELOW = 32 * 1024
_HOUSEKEEPING = 0.1


class Hub:
    """A running topology. `run` returns when it has ended; all else is for the parts of the hub."""

    def __init__(
        self, settings: Settings, reporter: Reporter, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.settings = settings
        self.plan = settings.plan
        self.reporter = reporter
        self.clock = clock
        self.now = clock()
        self.tasks = build_tasks(settings)
        self.by_id = {task.id: task for task in self.tasks}
        self.spouts = [task for task in self.tasks if task.spout]
        self.acker = Acker(self.plan.number("topology.message.timeout.secs", 30), self._tree_ended)
        self.tracking = self.plan.number("topology.acker.executors", 1) != 0
        self.gate = Gate(self)
        self.supervisor = Supervisor(self)
        self.course = Course(self)
        self._due = 0.0
        self.dirty: set[Task] = set()
        self.commands = Commands(self)
        self.failure: LocalStormError | None = None
        self._view = memoryview(bytearray(_READ))
        self._buffers = [self._view]
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)

    # -- the loop ------------------------------------------------------------------------------------

    def run(self, each_turn: Callable[["Hub"], None] | None = None) -> None:
        """Runs the topology until it is told to stop, or raises the error that ended it.

        `each_turn` is called after every turn of the loop.
        """
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._woken)
        keep_freed_memory()
        try:
            self.supervisor.start()
            while not self.course.ended:
                self.turn()
                if each_turn:
                    each_turn(self)
        finally:
            self.supervisor.kill_all()
            self.course.phase = "ended"
            self._selector.close()
            os.close(self._wake_read)
            os.close(self._wake_write)
            self.reporter.close(self.tasks)
        if self.failure:
            raise self.failure

    def turn(self) -> None:
        """Waits for something to happen and handles it."""
        for key, _ in self._selector.select(self._patience()):
            self.now = self.clock()
            key.data()
        self.now = self.clock()
        if self.now >= self._due:
            self._keep_house()
        self._flush_all()
        for spout in self.spouts:  # now that what they feed has been relieved
            self._ask(spout)
        self._flush_all()

    def _flush_all(self) -> None:
        while self.dirty:
            self.flush(self.dirty.pop())

    def wake(self) -> None:
        """Makes the loop look around; callable from any thread and from a signal handler."""
        with contextlib.suppress(OSError):
            os.write(self._wake_write, b".")

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        self._keep_house()

    def _keep_house(self) -> None:
        self._due = self.now + _HOUSEKEEPING
        self.acker.expire(self.now)
        self.supervisor.tend()
        self.course.advance(self.now)
        self.reporter.turn(self.tasks, len(self.acker), self.course.phase, self.now)

    def _patience(self) -> float:
        until = self._due
        for task in self.spouts:
            spout = task.spout
            assert spout
            if spout.active and not spout.asked and self.now < spout.idle_until < until:
                until = spout.idle_until
        return max(0.0, until - self.clock())

    def watch(self, descriptor: int, call: Callable[[], None], *, write: bool = False) -> None:
        """Calls when the descriptor is ready."""
        self._selector.register(descriptor, selectors.EVENT_WRITE if write else selectors.EVENT_READ, call)

    def unwatch(self, descriptor: int) -> None:
        """Calls no more."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(descriptor)

    # -- from components -----------------------------------------------------------------------------

    def read(self, task: Task) -> bool:
        """Handles what a task has written; False when there was nothing more or it has ended."""
        child = task.child
        if child is None:
            return False
        try:
            # Into one buffer for all: a fresh megabyte for each read costs its page faults.
            size = os.readv(child.stdout, self._buffers)
        except BlockingIOError:
            return False
        if not size:
            self.unwatch(child.stdout)
            task.reading = False
            self.supervisor.stdout_closed(task)
            return False
        task.heard = self.now
        try:
            for message in task.framer.feed(bytes(self._view[:size])):
                if task.doomed:
                    break
                self.commands.handle(task, message)
        except ProtocolError as error:
            self.supervisor.doom(task, str(error))
        return True

    # -- to spouts -----------------------------------------------------------------------------------

    def _tree_ended(self, tree: Tree, outcome: str, now: float) -> None:
        task = tree.owner
        assert isinstance(task, Task)
        assert task.spout
        task.spout.pending -= 1
        if outcome == "ack":
            task.counters.latency += now - tree.started
            self.tell_outcome(task, "ack", tree.message_id)
        else:
            self.tell_outcome(task, "fail", tree.message_id)
        if self.settings.observe_outcome:
            self.settings.observe_outcome(task, tree.message_id, outcome)

    def tell_outcome(self, task: Task, outcome: str, message_id: bytes) -> None:
        assert task.spout
        if outcome == "ack":
            task.counters.acked += 1
        else:
            task.counters.failed += 1
        self.tell(task, outcome, wire.outcome(outcome, message_id))

    def tell(self, task: Task, command: str, message: bytes) -> None:
        """Queues a command for a spout; it will answer with a sync."""
        assert task.spout
        if not task.spout.waiting:
            task.heard = self.now  # it owes an answer from now on, however long it had none to give
        task.spout.sent(command, self.now)
        task.control.append(message)
        self.dirty.add(task)

    def _ask(self, task: Task) -> None:
        assert task.spout
        if self.gate.closed_for(task):
            return
        for _ in range(task.spout.asks(self.now)):
            self.tell(task, "next", wire.NEXT)

    # -- to components -------------------------------------------------------------------------------

    def flush(self, task: Task) -> None:
        """Writes what waits for a task, as far as its pipe takes it."""
        while task.child is not None and not task.doomed and not task.writing:
            crash = False
            if task.partial is None:
                parts, size, crash = self._gather(task)
                if not parts:
                    break
                if size < _JOIN_BELOW:
                    parts = [b"".join(parts)]
            else:
                parts, size = [task.partial], len(task.partial)
            try:
                written = os.writev(task.child.stdin, parts)
            except BlockingIOError:
                written = 0
            except OSError:  # it is going; its exit will be noticed
                return
            if written < size:
                task.partial = memoryview(b"".join(parts))[written:]
                task.writing = True
                self.watch(task.child.stdin, lambda: self._writable(task), write=True)
            else:
                task.partial = None
            if crash:
                self.supervisor.doom(task, "scripted crash as it got a tuple")
        if task.over:
            self.gate.shrunk(task)

    def _writable(self, task: Task) -> None:
        assert task.child
        self.unwatch(task.child.stdin)
        task.writing = False
        self.flush(task)

    def _gather(self, task: Task) -> tuple[list[bytes | memoryview], int, bool]:
        """The next parts to write, their size, and whether a scripted crash follows. Tuples among them
        belong to the process from here on."""
        parts: list[bytes | memoryview] = list(task.control)
        task.control.clear()
        size = sum(map(len, parts))
        outbox = task.outbox
        if not (outbox and task.ready):
            return parts, size, False
        if not task.inflight:
            task.busy_since = self.now
        crash = False
        while outbox and size < _BATCH_BYTES and len(parts) < _BATCH_PARTS and not crash:
            number, head, values, trees = outbox.popleft()
            parts += (head, values, wire.TAIL)
            size += len(head) + len(values) + len(wire.TAIL)
            task.outbox_bytes -= len(values)
            task.inflight[number] = (trees, self.now)
            crash = task.faults is not None and task.faults.delivering()
        return parts, size, crash
