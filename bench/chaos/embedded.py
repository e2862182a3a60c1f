"""The embedded Clicktide as a place for faults: every process that the demo runs, its files, and the ways to it.

Promises: pids are of processes that run now and were started by this run; Redis's append-only file is cut only while
no Redis has it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec

import localstorm
from bench.chaos.clocks import Clocks
from bench.chaos.components import CLOCK_WORDS
from bench.chaos.disks import Disk
from bench.chaos.links import Links
from bench.chaos.pair import Pair, Server
from bench.chaos.plan import FAILOVER, FULL, KILL, LINK_KINDS, LOCK, LOSE, SKEW, SLOW, STOP
from clicktide import keys
from clicktide.settings import Settings
from deploy.embedded import plan, redis
from deploy.embedded.child import Child
from deploy.embedded.places import SHARD_FILES
from deploy.embedded.record import start_time
from deploy.embedded.supervisor import Supervisor

EVENTS_TASKS = ("spout", "parse", "aggregate", "persist", "divert")
REDRIVE_TASKS = ("retry_spout", "retry", "divert")
TASKS = tuple(f"events.{n}" for n in EVENTS_TASKS) + tuple(f"redrive.{n}" for n in REDRIVE_TASKS)
CHILDREN = ("events", "redrive", "redis", "services")
SHARDS = tuple(f"shard-{i}" for i in range(SHARD_FILES))
LINKS = ("redis", "collector")
RESTART_PAUSE_S = 0.3


def targets() -> Mapping[str, Sequence[str]]:
    """Whom each kind of fault can befall."""
    everybody = [*TASKS, *CHILDREN]
    return {
        KILL: everybody,
        STOP: everybody,
        SLOW: ["redis"],
        LOSE: ["redis"],
        LOCK: [*SHARDS, "log"],
        FULL: [*SHARDS, "log", "redis"],
        SKEW: list(CLOCK_WORDS),
        FAILOVER: ["redis"],
        **dict.fromkeys(LINK_KINDS, LINKS),
    }


class EmbeddedSite:
    """Wraps a running `Supervisor`; `tend` must be called a few times a second. `disks`: the small disks, by target."""

    def __init__(
        self,
        services: Supervisor,
        settings: Settings,
        links: Links,
        clocks: Clocks,
        disks: Mapping[str, Disk],
        collector_port: int,
    ) -> None:
        self.services, self.settings = services, settings
        self.url = plan.urls(collector_port)["collector"]
        self._links, self._clocks, self._disks = links, clocks, disks
        self._second: Child | None = None
        self._pair: Pair | None = None
        self._failed: dict[tuple[str, int], tuple[int, int]] = {}

    def add_replica(self, child: Child, socket: Path, replication_port: int) -> None:
        """A second Redis that follows the first; it is started again here."""
        self._second = child
        first, second = self._child("redis"), child
        assert first is not None
        places = self.services.places
        self._pair = Pair(
            Server(
                "redis", f"unix:{places.socket}", partial(redis.ask, places.socket), partial(_kill, first)
            ),
            Server("second", f"unix:{socket}", partial(redis.ask, socket), partial(_kill, second)),
            self._links,
            replication_port,
        )

    def tend(self) -> None:
        """Starts again what has ended. Raises `EmbeddedError` for a process that never comes up."""
        self.services.watch()
        now = time.monotonic()
        if self._second is not None and self._second.exit_code() is not None:
            if self._second.restart_at is None:
                self._second.restart_at = now + RESTART_PAUSE_S
            elif now >= self._second.restart_at:
                self._second.start(now)
        if self._pair is not None:
            self._pair.tend()
        for name in plan.TOPOLOGIES:
            self._note(name)

    def pids(self, target: str) -> list[int]:
        topology, dot, component = target.partition(".")
        child = self._child(topology) if topology != "redis" else self._redis()
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
        if not self.pids("redis") or not redis.answers(self._socket()):
            return None
        files = sorted((self._folder() / "appendonlydir").glob("*.incr.aof"))
        return (files[-1], files[-1].stat().st_size) if files else None

    def lose(self, mark: tuple[Path, int]) -> int | None:
        file, size = mark
        child = self._redis()
        # Its process is this one's child: nobody else starts it again before the next `tend`.
        if child is None or child.process is None or child.exit_code() is not None:
            return None
        _kill(child)
        if max(file.parent.glob("*.incr.aof"), default=None) != file:
            return None
        lost = file.stat().st_size - size
        os.truncate(file, size)
        return lost

    def turn_link(self, target: str, mode: str) -> None:
        self._links.turn(target, mode)

    def disk(self, target: str) -> Disk | None:
        found = self._disks.get(target)
        if found is not None and target == "redis" and self._pair is not None:
            return replace(found, after=self._pair.rewrite)
        return found

    def skew(self, target: str, seconds: float) -> None:
        self._clocks.set(target, seconds)

    def rebalance(self, target: str, executors: int) -> bool:  # noqa: ARG002 - the runner has none
        return False

    def part_replica(self) -> bool:
        return self._pair is not None and self._pair.part()

    def fail_over(self) -> bool:
        return self._pair is not None and self._pair.switch()

    def hold_down(self, target: str, *, down: bool) -> None:  # noqa: ARG002 - no target here has it
        raise ValueError(f"{target}: the supervisor starts again what ends")

    def settle(self) -> None:
        if self._pair is not None:
            self._pair.settle()

    def published(self, topic: str) -> dict[str, str]:
        """The spouts' positions, as they are stored. Raises OSError while Redis is away."""
        key = keys.spouts(self.settings.text("redis.namespace"), topic)
        answer = redis.ask(self._socket(), "HGETALL", key)
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

    # -- the Redis that is primary now

    def _is_second(self) -> bool:
        return self._pair is not None and self._pair.primary.name == "second"

    def _redis(self) -> Child | None:
        return self._second if self._is_second() else self._child("redis")

    def _socket(self) -> Path:
        if self._pair is None:
            return self.services.places.socket
        return Path(self._pair.primary.address.removeprefix("unix:"))

    def _folder(self) -> Path:
        folder = self.services.places.redis
        return folder / "second" if self._is_second() else folder


def _kill(child: Child) -> None:
    if child.process is not None:
        child.process.kill()
        child.process.wait()


def parent_of(pid: int) -> int | None:
    """The parent of a living process."""
    if not start_time(pid):
        return None
    try:
        return int(Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return None
