"""Keeps what waits in the hub bounded.

A task is *over* with more waiting than `topology.shellbolt.max.pending` tuples (100) or 8 MiB: no spout that
leads to it is asked for more until it is under half of that. It is *flooded* at ten times as much: then those
who feed it are not read from, so that they block on their own pipes. Components of a cycle are always read,
so that no ring of full pipes can come about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from localstorm.task import Task

if TYPE_CHECKING:
    from localstorm.hub import Hub

OVER_BYTES = 8 << 20
FLOOD = 10


class Gate:
    """Says which spouts have to wait, and stops reading from who floods others."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        plan = hub.plan
        self._tuples = max(2, int(plan.number("topology.shellbolt.max.pending", 100)))
        downstream = {component.name: plan.downstream(component.name) for component in plan.components}
        self._downstream = downstream
        self._feeders: dict[str, list[Task]] = {name: [] for name in downstream}
        for task in hub.tasks:
            if task.name in downstream[task.name]:
                continue
            for consumers in plan.consumers(task.name).values():
                for name in consumers:
                    self._feeders[name].append(task)
        self._over: dict[str, int] = {}
        self._flooded: set[Task] = set()
        self._paused: dict[Task, int] = {}

    def closed_for(self, spout: Task) -> bool:
        """Whether something that this spout feeds is full."""
        return bool(self._over) and not self._downstream[spout.name].isdisjoint(self._over)

    def is_paused(self, task: Task) -> bool:
        """Whether nobody reads what the task writes at present."""
        return task in self._paused

    def grown(self, task: Task) -> None:
        """More waits for a task."""
        if len(task.outbox) >= self._tuples or task.outbox_bytes >= OVER_BYTES:
            task.over = True
            self._over[task.name] = self._over.get(task.name, 0) + 1

    def shrunk(self, task: Task) -> None:
        """An over-full task was written to, or written off; call it after each flush of one."""
        waiting, size = len(task.outbox), task.outbox_bytes
        if task in self._flooded:
            if waiting <= self._tuples and size <= OVER_BYTES:
                self._flooded.discard(task)
                self._resume(task)
        elif waiting >= self._tuples * FLOOD or size >= OVER_BYTES * FLOOD:
            self._flooded.add(task)
            self._pause(task)
        if waiting <= self._tuples // 2 and size <= OVER_BYTES // 2:
            task.over = False
            left = self._over.pop(task.name) - 1
            if left:
                self._over[task.name] = left

    def _pause(self, task: Task) -> None:
        for feeder in self._feeders[task.name]:
            self._paused[feeder] = self._paused.get(feeder, 0) + 1
            if feeder.reading and feeder.child:
                self._hub.unwatch(feeder.child.stdout)
                feeder.reading = False

    def _resume(self, task: Task) -> None:
        for feeder in self._feeders[task.name]:
            left = self._paused.pop(feeder) - 1
            if left:
                self._paused[feeder] = left
            else:
                self._hub.supervisor.watch_stdout(feeder)
