"""The embedded Clicktide as a place for faults: every process that the demo runs, and its files.

Promises: pids are of processes that run now and were started by this run; Redis's append-only file is cut only while
no Redis has it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

import localstorm
from bench.chaos.plan import KILL, LOCK, LOSE, SLOW, STOP
from clicktide import keys
from deploy.embedded import plan, redis
from deploy.embedded.child import Child
from deploy.embedded.places import SHARD_FILES
from deploy.embedded.record import start_time
from deploy.embedded.supervisor import Supervisor

EVENTS_TASKS = ("spout", "parse", "aggregate", "persist", "divert")
REDRIVE_TASKS = ("retry_spout", "retry", "divert")
TASKS = tuple(f"events.{n}" for n in EVENTS_TASKS) + tuple(f"redrive.{n}" for n in REDRIVE_TASKS)
CHILDREN = ("events", "redrive", "redis", "services")


def targets() -> Mapping[str, Sequence[str]]:
    """Whom each kind of fault can befall."""
    shards = [f"shard-{i}" for i in range(SHARD_FILES)]
    everybody = [*TASKS, *CHILDREN]
    return {KILL: everybody, STOP: everybody, SLOW: ["redis"], LOSE: ["redis"], LOCK: [*shards, "log"]}


class EmbeddedSite:
    """Wraps a running `Supervisor`; `tend` must be called a few times a second."""

    def __init__(self, services: Supervisor) -> None:
        self.services = services
        self.settings = services.settings
        self.url = plan.urls(services.port)["collector"]
        self._failed: dict[tuple[str, int], tuple[int, int]] = {}

    def tend(self) -> None:
        """Starts again what has ended. Raises `EmbeddedError` for a process that never comes up."""
        self.services.watch()
        for name in plan.TOPOLOGIES:
            self._note(name)

    def pids(self, target: str) -> list[int]:
        topology, dot, component = target.partition(".")
        child = self._child(topology)
        if child is None or child.pid is None or child.exit_code() is not None:
            return []
        if not dot:
            return [child.pid]
        snapshot = self._snapshot(topology)
        if snapshot is None or snapshot.pid != child.pid:
            return []
        return [
            t.pid
            for t in snapshot.tasks
            if t.component == component and t.pid and parent_of(t.pid) == child.pid
        ]

    def lock_file(self, target: str) -> Path:
        places = self.services.places
        return places.log if target == "log" else places.shards[int(target.rpartition("-")[2])]

    def aof(self) -> tuple[Path, int] | None:
        if not self.pids("redis") or not redis.answers(self.services.places.socket):
            return None
        files = sorted((self.services.places.redis / "appendonlydir").glob("*.incr.aof"))
        return (files[-1], files[-1].stat().st_size) if files else None

    def lose(self, mark: tuple[Path, int]) -> int | None:
        file, size = mark
        child = self._child("redis")
        # Its process is this one's child: nobody else starts it again before the next `tend`.
        if child is None or child.process is None or child.exit_code() is not None:
            return None
        child.process.kill()
        child.process.wait()
        if max(file.parent.glob("*.incr.aof")) != file:
            return None
        lost = file.stat().st_size - size
        os.truncate(file, size)
        return lost

    def published(self, topic: str) -> dict[str, str]:
        """The spouts' positions, as they are stored. Raises OSError while Redis is away."""
        key = keys.spouts(self.settings.text("redis.namespace"), topic)
        answer = redis.ask(self.services.places.socket, "HGETALL", key)
        return dict(zip(answer[::2], answer[1::2], strict=True))

    def replays(self) -> int:
        """Slices that failed and came again, seen so far."""
        return sum(failed for failed, _ in self._failed.values())

    def restarts(self) -> int:
        """Tasks started again by their hub, seen so far."""
        return sum(restarts for _, restarts in self._failed.values())

    def _note(self, topology: str) -> None:
        if (snapshot := self._snapshot(topology)) is not None:
            failed = sum(c.failed for c in snapshot.components if c.kind == "spout")
            self._failed[topology, snapshot.pid] = failed, sum(c.restarts for c in snapshot.components)

    def _snapshot(self, topology: str) -> localstorm.Snapshot | None:
        with contextlib.suppress(OSError, msgspec.DecodeError):
            return localstorm.read_file(self.services.places.stats(topology))
        return None

    def _child(self, name: str) -> Child | None:
        return next((c for c in self.services.children if c.name == name), None)


def parent_of(pid: int) -> int | None:
    """The parent of a living process."""
    if not start_time(pid):
        return None
    try:
        return int(Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return None
