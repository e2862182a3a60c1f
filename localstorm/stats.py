"""Snapshots of a run: plain values for the table, the summary line, the stats file and callers.

Rates are over the last ten seconds; everything else counts from the start. Latencies are in milliseconds.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from localstorm.task import Task

WINDOW = 10.0


class ComponentStats(msgspec.Struct):
    """One component, all its tasks together. A spout's acked, failed and latency are of whole trees."""

    name: str
    kind: str
    tasks: int
    running: int = 0
    emitted: int = 0
    transferred: int = 0
    acked: int = 0
    failed: int = 0
    rate: float = 0.0
    """A second: tuples emitted by a spout, acked or failed by a bolt."""
    latency_ms: float = 0.0
    """Process latency of a bolt (from being written to its pipe), complete latency of a spout."""
    capacity: float = 0.0
    """Share of the time that a task had something to do."""
    restarts: int = 0
    queued: int = 0
    inflight: int = 0
    pending: int = 0
    """Trees of a spout that are neither acked nor failed."""
    metrics: dict[str, object] = {}


class TaskStats(msgspec.Struct):
    """One task. `pid` is None while it has no process."""

    id: int
    component: str
    index: int
    state: str
    pid: int | None
    restarts: int
    log: str


class Snapshot(msgspec.Struct):
    """All of a run at one moment. `state` is starting, running, draining, ending or ended."""

    topology: str
    pid: int
    state: str
    uptime: float
    trees: int
    components: list[ComponentStats]
    tasks: list[TaskStats]

    def component(self, name: str) -> ComponentStats:
        """The component of this name. Raises KeyError."""
        for component in self.components:
            if component.name == name:
                return component
        raise KeyError(name)


class Sampler:
    """Makes snapshots; remembers ten seconds of counts for the rates."""

    def __init__(self, topology: str, started: float) -> None:
        self._topology = topology
        self._started = started
        self._history: deque[tuple[float, dict[str, tuple[int, float]]]] = deque()

    def sample(self, tasks: Sequence[Task], trees: int, state: str, now: float) -> Snapshot:
        """The run as it is now."""
        components: dict[str, ComponentStats] = {}
        latency: dict[str, float] = {}
        busy: dict[str, float] = {}
        for task in tasks:
            row = components.setdefault(task.name, ComponentStats(task.name, task.component.kind, 0))
            add(row, task)
            counters = task.counters
            latency[task.name] = latency.get(task.name, 0.0) + counters.latency
            since = now - task.busy_since if task.inflight else 0.0
            busy[task.name] = busy.get(task.name, 0.0) + counters.busy + since
        done = {
            name: (row.emitted if row.kind == "spout" else row.acked + row.failed, busy[name])
            for name, row in components.items()
        }
        before_at, before = self._history[0] if self._history else (now, done)
        for name, row in components.items():
            if row.acked:
                row.latency_ms = round(1000 * latency[name] / row.acked, 3)
            if now > before_at:
                span = now - before_at
                row.rate = round((done[name][0] - before[name][0]) / span, 1)
                row.capacity = round((done[name][1] - before[name][1]) / span / row.tasks, 3)
        self._history.append((now, done))
        while self._history[0][0] < now - WINDOW:
            self._history.popleft()
        return Snapshot(
            self._topology,
            os.getpid(),
            state,
            round(now - self._started, 3),
            trees,
            list(components.values()),
            [task_stats(task) for task in sorted(tasks, key=lambda task: task.id)],
        )


def add(row: ComponentStats, task: Task) -> None:
    """Adds one task's counts to its component's."""
    counters = task.counters
    row.tasks += 1
    row.running += task.state == "running"
    row.emitted += counters.emitted
    row.transferred += counters.transferred
    row.acked += counters.acked
    row.failed += counters.failed
    row.restarts += counters.restarts
    row.queued += len(task.outbox)
    row.inflight += len(task.inflight)
    row.pending += task.spout.pending if task.spout else 0
    if task.metrics:
        row.metrics = {**row.metrics, **task.metrics}


def task_stats(task: Task) -> TaskStats:
    """One task's row."""
    return TaskStats(
        task.id,
        task.name,
        task.index,
        task.state,
        task.child.pid if task.child else None,
        task.counters.restarts,
        f"{task.name}-{task.id}",
    )


def write_file(path: Path, snapshot: Snapshot) -> None:
    """Replaces the file in one step, so that a reader never sees half of it. Raises OSError."""
    beside = path.with_name(path.name + ".new")
    try:
        beside.write_bytes(msgspec.json.format(msgspec.json.encode(snapshot), indent=1))
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def read_file(path: Path) -> Snapshot:
    """What `write_file` wrote. Raises OSError, msgspec.DecodeError."""
    return msgspec.json.decode(path.read_bytes(), type=Snapshot)


def summary(snapshot: Snapshot) -> str:
    """One line for a log or a console that is no terminal."""
    parts = []
    for row in snapshot.components:
        text = f"{row.name} {row.rate:g}/s"
        text += f" emitted {row.emitted}" if row.kind == "spout" else f" acked {row.acked}"
        if row.failed:
            text += f" failed {row.failed}"
        if row.pending or row.queued:
            text += f" waiting {row.pending + row.queued}"
        if row.restarts:
            text += f" restarts {row.restarts}"
        if row.running < row.tasks and snapshot.state != "ended":
            text += f" ({row.running} of {row.tasks} up)"
        parts.append(text)
    return f"{snapshot.uptime:.0f} s {snapshot.state}: " + "; ".join(parts)
