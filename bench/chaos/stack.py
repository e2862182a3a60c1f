"""A real stack of its own as a place for faults: Storm, Kafka, Redis and its replica, two MariaDB servers, the services.

Its folder, its ports and its topologies are the run's, so that a stack that others use is not touched. Promises: what
a fault ended is started again as an operator's service manager would.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.chaos import nimbus
from bench.chaos.clocks import Clocks
from bench.chaos.components import CLASSES, CLOCK_WORDS
from bench.chaos.disks import Disk
from bench.chaos.links import Links
from bench.chaos.pair import Pair
from bench.chaos.plan import AWAY, FAILOVER, FULL, KILL, LINK_KINDS, LOSE, REBALANCE, SKEW, SLOW, STOP
from clicktide import keys, topics
from clicktide.settings import Settings
from deploy.embedded.child import Child
from deploy.stack.errors import StackError
from deploy.stack.process import descendants, every_process
from deploy.stack.servers.base import Server
from deploy.stack.servers.storm import worker_processes
from deploy.stack.stack import Stack

SERVERS = ("kafka", "redis", "mariadb-1", "mariadb-2", "zookeeper", "nimbus", "supervisor")
STORES = ("kafka", "redis", "mariadb-1", "mariadb-2")
# What can be moved while it runs: these have more tasks than executors (topologies/parallelism.py).
MOVABLE = ("events.spout", "events.parse", "events.aggregate", "events.persist", "redrive.retry")
RESTART_PAUSE_S = 1.0
_REPLAYS_EVERY_S = 1.0


def targets() -> Mapping[str, Sequence[str]]:
    """Whom each kind of fault can befall."""
    everybody = [*CLASSES, *SERVERS, "worker", "services"]
    return {
        KILL: everybody,
        STOP: [n for n in everybody if n != "zookeeper"],
        SLOW: STORES,
        LOSE: ["redis"],
        FULL: STORES,
        SKEW: list(CLOCK_WORDS),
        FAILOVER: ["redis"],
        REBALANCE: MOVABLE,
        AWAY: STORES,
        **dict.fromkeys(LINK_KINDS, (*STORES, "collector")),
    }


class StackSite:
    """Wraps a running `Stack` and its services; `tend` must be called a few times a second. `disks`: the small disks, by
    the server's name."""

    def __init__(
        self,
        stack: Stack,
        settings: Settings,
        services: Child,
        url: str,
        links: Links,
        clocks: Clocks,
        disks: Mapping[str, Disk],
        pair: Pair,
        say: Callable[[str], None],
    ) -> None:
        self.stack, self.settings, self.services, self.url, self.say = stack, settings, services, url, say
        self._links, self._clocks, self._disks, self._pair = links, clocks, disks, pair
        self._held_down: dict[str, str] = {}
        self._down: dict[str, float] = {}
        self._restarts = 0
        self._looked_at = float("-inf")
        self._failed: Counter[tuple[str, str]] = Counter()
        self._replays = 0

    def tend(self) -> None:
        """Starts again what has ended, a second later, but for those that are held down."""
        now = time.monotonic()
        for item in self.stack.servers:
            self._tend(item, now)
        if self.services.exit_code() is not None:
            self._restarts += 1
            self.services.start(now)
        self._pair.tend()
        if now - self._looked_at >= _REPLAYS_EVERY_S:
            self._count_replays()
            self._looked_at = time.monotonic()

    def _tend(self, item: Server, now: float) -> None:
        if item.name in self._held_down.values():
            return
        if self.stack.server(item.name).pid is not None:
            self._down.pop(item.name, None)
        elif item.name not in self._down:
            self._down[item.name] = now + RESTART_PAUSE_S
            self.say(f"{item.name} has ended; starting it again in {RESTART_PAUSE_S:g} s")
        elif now >= self._down[item.name]:
            try:
                self.stack.launch(item)
            except (StackError, OSError) as e:  # a full disk; a port that is not free yet
                self._down[item.name] = now + RESTART_PAUSE_S
                self.say(f"{item.name} cannot be started now: {e}")

    def pids(self, target: str) -> list[int]:
        if target == "services":
            pid = self.services.pid if self.services.exit_code() is None else None
        elif target in SERVERS:
            pid = self.stack.server(self._primary() if target == "redis" else target).pid
        else:
            return self._storm(target)
        return [pid] if pid else []

    def _storm(self, target: str) -> list[int]:
        """The first worker JVM of a topology, or the first process of a component."""
        workers = [record.pid for record in worker_processes(self.stack.settings)]
        if target == "worker":
            return [pid for pid in workers if b"org.apache.storm.daemon.worker.Worker" in _command(pid)][:1]
        name = CLASSES[target].encode()
        below = [stat.pid for stat in descendants(every_process(), workers)]
        return [pid for pid in below if pid not in workers and name in b" ".join(_command(pid))][:1]

    def lock_file(self, target: str) -> Path:
        raise ValueError(f"{target}: there are no shard files on the stack")

    def aof(self) -> tuple[Path, int] | None:
        if not self.stack.server(self._primary()).answers():
            return None
        files = sorted(self.stack.settings.folder(self._primary(), "data").rglob("*.incr.aof"))
        return (files[-1], files[-1].stat().st_size) if files else None

    def lose(self, mark: tuple[Path, int]) -> int | None:
        file, size = mark
        handle = self.stack.server(self._primary())
        if handle.pid is None:
            return None
        handle.kill()
        if max(file.parent.glob("*.incr.aof"), default=None) != file:
            return None
        lost = file.stat().st_size - size
        os.truncate(file, size)
        return lost

    def turn_link(self, target: str, mode: str) -> None:
        self._links.turn(target, mode)

    def disk(self, target: str) -> Disk | None:
        if target != "redis":
            return self._disks.get(target)
        found = self._disks.get(self._primary())
        return found and replace(found, after=self._pair.rewrite)

    def skew(self, target: str, seconds: float) -> None:
        self._clocks.set(target, seconds)

    def rebalance(self, target: str, executors: int) -> bool:
        topology, _, component = target.partition(".")
        port = self.stack.settings.nimbus_port
        return nimbus.rebalance(port, topology, {component: executors}, workers=executors)

    def part_replica(self) -> bool:
        return self._pair.part()

    def fail_over(self) -> bool:
        return self._pair.switch()

    def hold_down(self, target: str, *, down: bool) -> None:
        if down:
            self._held_down[target] = self._primary() if target == "redis" else target
        else:
            self._held_down.pop(target, None)

    def settle(self) -> None:
        self._pair.settle()

    def published(self, topic: str) -> dict[str, str]:
        """The spouts' positions, as they are stored. Raises OSError while Redis is away."""
        key = keys.spouts(self.settings.text("redis.namespace"), topic)
        try:
            answer = self._pair.primary.ask("HGETALL", key)
        except Exception as e:
            raise ConnectionError(str(e)) from e
        return {_text(k): _text(v) for k, v in answer.items()}

    def replays(self) -> int:
        """Slices that failed and came again, by what the spouts publish twice a second: nearly all."""
        return self._replays

    def restarts(self) -> int:
        return self._restarts

    def _count_replays(self) -> None:
        prefix = self.settings.text("topics.prefix")
        for name in (topics.EVENTS, *topics.RETRY):
            try:
                found = self.published(prefix + name)
            except OSError:
                return
            for partition, text in found.items():
                failed, where = _failed(text), (name, partition)
                # Less than before: another life of the task, which counts from nothing.
                self._replays += failed - self._failed[where] if failed >= self._failed[where] else failed
                self._failed[where] = failed

    def _primary(self) -> str:
        return self._pair.primary.name


def _failed(text: str) -> int:
    try:
        position: dict[str, Any] = json.loads(text)
        return int(position.get("failed", 0))
    except (ValueError, TypeError):
        return 0


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _command(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
