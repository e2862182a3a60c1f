"""Does what components command: routes their emits, books their acks and fails, passes on what they log.

A command that the protocol or the topology does not allow raises ProtocolError; the process that sent it is
then replaced, as Storm would replace the worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from localstorm import wire
from localstorm.acker import Trees, merge
from localstorm.errors import ProtocolError
from localstorm.task import Route, Task

if TYPE_CHECKING:
    from localstorm.hub import Hub


class Commands:
    """The commands of all tasks of one hub."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._observe = hub.settings.observe
        self._tuple_ids = 0

    def handle(self, task: Task, message: bytes) -> None:
        """Does what one message says. Raises ProtocolError."""
        if not task.greeted:
            self._hub.supervisor.greeted(task, wire.decode_pid(message))
            return
        command = wire.decode(message, foreign=task.foreign)
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
            self._hub.supervisor.component_logged(task, command.level, str(command.msg))
        elif isinstance(command, wire.Error):
            self._hub.supervisor.component_error(task, str(command.msg))
        else:
            task.metrics[command.name] = command.params

    def _sync(self, task: Task) -> None:
        task.heartbeat_open = False
        command = task.spout.synced(self._hub.now) if task.spout else None
        if not task.ready and (task.spout is None or command == "activate"):
            self._hub.supervisor.became_ready(task)

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
        message_id = bytes(emit.id) if spout and self._hub.tracking else b""
        trees: Trees = ()
        if message_id and message_id != b"null":
            assert spout
            spout.pending += 1
            trees = self._hub.acker.open(task, message_id, len(targets), self._hub.now)
        elif spout:
            if emit.id and bytes(emit.id) != b"null":  # no ackers: Storm acks at once
                self._hub.tell_outcome(task, "ack", bytes(emit.id))
        elif emit.anchors:
            trees = self._anchored(task, emit.anchors)
            self._hub.acker.grow(trees, len(targets))
        for target in targets:
            self._tuple_ids = number = self._tuple_ids + 1
            head = b'{"id":"%d%b' % (number, task.middles[emit.stream])
            target.outbox.append((number, head, values, trees))
            target.outbox_bytes += len(values)
            self._hub.dirty.add(target)
            if not target.over:
                self._hub.gate.grown(target)
        task.counters.transferred += len(targets)
        if emit.need_task_ids and emit.task is None:
            task.control.append(wire.encode([target.id for target in targets]))
            self._hub.dirty.add(task)
        if self._observe:
            self._observe(task, emit.stream, message_id, values)

    @staticmethod
    def _choose(routes: list[Route], values: wire.Values) -> list[Task]:
        targets: list[Task] = []
        for tasks, choose in routes:
            if choose is None:
                raise ProtocolError("emitted without a task on a stream that is grouped DIRECT")
            targets += [tasks[index] for index in choose(values)]
        return targets

    def _direct(self, routes: list[Route], emit: wire.Emit) -> list[Task]:
        target = self._hub.by_id.get(emit.task or 0)
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
                self._hub.reporter.once(
                    task, "anchored an emit to a tuple it had acked or failed: it is untracked"
                )
        return merge(found)

    def _ack(self, task: Task, tuple_id: str | int) -> None:
        number = to_id(tuple_id)
        if task.faults and number in task.inflight:
            fault = task.faults.acking()
            if fault == "crash":
                self._hub.supervisor.doom(task, "scripted crash before its ack")
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
            self._hub.acker.ack(trees, self._hub.now)

    def _fail(self, task: Task, tuple_id: str | int) -> None:
        trees = self._finish(task, to_id(tuple_id), "fail")
        if trees is None:
            return
        task.counters.failed += 1
        self._hub.acker.fail(trees, self._hub.now)

    def _finish(self, task: Task, number: int, what: str) -> Trees | None:
        record = task.inflight.pop(number, None)
        if record is None:
            if number:  # 0 is a tick or a heartbeat
                self._hub.reporter.once(
                    task,
                    f"sent {what} for a tuple it had already acked or failed; Storm stops the worker for that",
                )
            return None
        counters = task.counters
        if what == "ack":
            counters.latency += self._hub.now - record[1]
        if not task.inflight:
            counters.busy += self._hub.now - task.busy_since
        return record[0]


def to_id(text: str | int) -> int:
    """A tuple id as a component gives it back. Raises ProtocolError."""
    try:
        return int(text)
    except ValueError:
        raise ProtocolError(f"named a tuple {text!r}, which is no id it was given") from None
