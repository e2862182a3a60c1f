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
from localstorm.acker import Acker, Tree, Trees, merge
from localstorm.backpressure import Gate
from localstorm.errors import LocalStormError, ProtocolError
from localstorm.reporting import Reporter
from localstorm.settings import Settings
from localstorm.supervision import Supervisor
from localstorm.task import Route, Task
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
        self.dirty: set[Task] = set()
        self.failure: LocalStormError | None = None
        self._tuple_ids = 0
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
        try:
            self.supervisor.start()
            while not self.supervisor.ended:
                self.turn()
                if each_turn:
                    each_turn(self)
        finally:
            self.supervisor.kill_all()
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
        if self.now >= self.supervisor.due:
            self.supervisor.tend(_HOUSEKEEPING)
        for spout in self.spouts:
            self._ask(spout)
        while self.dirty:
            self.flush(self.dirty.pop())

    def wake(self) -> None:
        """Makes the loop look around; callable from any thread and from a signal handler."""
        with contextlib.suppress(OSError):
            os.write(self._wake_write, b".")

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        self.supervisor.tend(_HOUSEKEEPING)

    def _patience(self) -> float:
        until = self.supervisor.due
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

    # -- what components say -------------------------------------------------------------------------

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
                self._handle(task, message)
        except ProtocolError as error:
            self.supervisor.doom(task, str(error))
        return True

    def _handle(self, task: Task, message: bytes) -> None:
        if not task.greeted:
            self.supervisor.greeted(task, wire.decode_pid(message))
            return
        command = wire.decode(message, foreign=task.component.foreign)
        # By how often they come.
        if isinstance(command, wire.Emit):
            self._emit(task, command)
        elif isinstance(command, wire.Ack):
            self._ack(task, command.id)
        elif isinstance(command, wire.Sync):
            self._sync(task)
        elif isinstance(command, wire.Fail):
            self._fail(task, command.id)
        elif isinstance(command, wire.Log):
            self.supervisor.component_logged(task, command.level, str(command.msg))
        elif isinstance(command, wire.Error):
            self.supervisor.component_error(task, str(command.msg))
        else:
            task.metrics[command.name] = command.params

    def _sync(self, task: Task) -> None:
        task.heartbeat_open = False
        command = task.spout.synced(self.now) if task.spout else None
        if not task.ready and (task.spout is None or command == "activate"):
            self.supervisor.became_ready(task)

    def _emit(self, task: Task, emit: wire.Emit) -> None:
        values = memoryview(emit.tuple)
        routes = task.routes.get(emit.stream)
        if routes is None:
            declared = ", ".join(task.routes) or "none"
            raise ProtocolError(
                f"emitted on stream {emit.stream!r}, which it does not declare (it has: {declared})"
            )
        task.counters.emitted += 1
        spout = task.spout
        if spout:
            spout.emitted = True
        targets = self._choose(routes, values) if emit.task is None else self._direct(routes, emit)
        message_id = bytes(emit.id) if spout and self.tracking else b""
        trees: Trees = ()
        if message_id and message_id != b"null":
            assert spout
            spout.pending += 1
            trees = self.acker.open(task, message_id, len(targets), self.now)
        elif spout:
            if emit.id and bytes(emit.id) != b"null":  # no ackers: Storm acks at once
                self._tell_spout(task, "ack", bytes(emit.id))
        elif emit.anchors:
            trees = self._anchored(task, emit.anchors)
            self.acker.grow(trees, len(targets))
        for target in targets:
            self._tuple_ids = number = self._tuple_ids + 1
            head = b'{"id":"%d%b' % (number, task.middles[emit.stream])
            target.outbox.append((number, head, values, trees))
            target.outbox_bytes += len(values)
            self.dirty.add(target)
            if not target.over:
                self.gate.grown(target)
        task.counters.transferred += len(targets)
        if emit.need_task_ids and emit.task is None:
            task.control.append(wire.encode([target.id for target in targets]))
            self.dirty.add(task)
        self.settings.observe(task, emit.stream, message_id, values)

    @staticmethod
    def _choose(routes: list[Route], values: wire.Values) -> list[Task]:
        targets: list[Task] = []
        for tasks, choose in routes:
            if choose is None:
                raise ProtocolError("emitted without a task on a stream that is grouped DIRECT")
            targets += [tasks[index] for index in choose(values)]
        return targets

    def _direct(self, routes: list[Route], emit: wire.Emit) -> list[Task]:
        target = self.by_id.get(emit.task or 0)
        if target is None or not any(target in route.tasks for route in routes):
            raise ProtocolError(
                f"emitted to task {emit.task}, which does not listen to stream {emit.stream!r}"
            )
        return [target]

    def _anchored(self, task: Task, anchors: list[str | int]) -> Trees:
        if len(anchors) == 1:
            record = task.inflight.get(to_id(anchors[0]))
            if record is not None:
                return record[0]
        found = []
        for anchor in anchors:
            number = to_id(anchor)
            record = task.inflight.get(number)
            if record is not None:
                found.append(record[0])
            elif number:
                self.reporter.once(
                    task, "anchored an emit to a tuple it had acked or failed: it is untracked"
                )
        return merge(found)

    def _ack(self, task: Task, tuple_id: str | int) -> None:
        number = to_id(tuple_id)
        if task.faults and number in task.inflight:
            fault = task.faults.acking()
            if fault == "crash":
                self.supervisor.doom(task, "scripted crash before its ack")
                return
            if fault == "fail":
                self._fail(task, tuple_id)
                return
            if fault == "lose":
                task.inflight.pop(number)
                return
        trees = self._finish(task, number, "ack")
        if trees is None:
            return
        task.counters.acked += 1
        if trees:
            self.acker.ack(trees, self.now)

    def _fail(self, task: Task, tuple_id: str | int) -> None:
        trees = self._finish(task, to_id(tuple_id), "fail")
        if trees is None:
            return
        task.counters.failed += 1
        self.acker.fail(trees, self.now)

    def _finish(self, task: Task, number: int, what: str) -> Trees | None:
        record = task.inflight.pop(number, None)
        if record is None:
            if number:  # 0 is a tick or a heartbeat
                self.reporter.once(
                    task,
                    f"sent {what} for a tuple it had already acked or failed; Storm stops the worker for that",
                )
            return None
        counters = task.counters
        if what == "ack":
            counters.latency += self.now - record[1]
        if not task.inflight:
            counters.busy += self.now - task.busy_since
        return record[0]

    # -- what spouts hear ----------------------------------------------------------------------------

    def _tree_ended(self, tree: Tree, outcome: str, now: float) -> None:
        task = tree.owner
        assert isinstance(task, Task)
        assert task.spout
        task.spout.pending -= 1
        if outcome == "ack":
            task.counters.latency += now - tree.started
            self._tell_spout(task, "ack", tree.message_id)
        else:
            self._tell_spout(task, "fail", tree.message_id)
        self.settings.observe_outcome(task, tree.message_id, outcome)

    def _tell_spout(self, task: Task, outcome: str, message_id: bytes) -> None:
        assert task.spout
        if outcome == "ack":
            task.counters.acked += 1
        else:
            task.counters.failed += 1
        self.tell(task, outcome, wire.outcome(outcome, message_id))

    def tell(self, task: Task, command: str, message: bytes) -> None:
        """Queues a command for a spout; it will answer with a sync."""
        assert task.spout
        task.spout.sent(command, self.now)
        task.control.append(message)
        self.dirty.add(task)

    def _ask(self, task: Task) -> None:
        assert task.spout
        if self.gate.closed_for(task):
            return
        for _ in range(task.spout.asks(self.now)):
            self.tell(task, "next", wire.NEXT)

    # -- what components get -------------------------------------------------------------------------

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


def to_id(text: str | int) -> int:
    """A tuple id as a component gives it back. Raises ProtocolError."""
    try:
        return int(text)
    except ValueError:
        raise ProtocolError(f"named a tuple {text!r}, which is no id it was given") from None
