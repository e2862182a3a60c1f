"""Drain: how fast a backlog goes from the log through the topology into both stores, and what it costs.

Events are made beforehand and written to the log as fast as it takes them; the clock starts when the last is written,
and stops when the spouts have seen all of them acked (so each is in Redis and committed in SQL).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench import machine
from bench.generator import events
from bench.system import System
from clicktide.log.port import Outgoing

_CHUNK = 2000
_STUCK_S = 120.0


@dataclass(frozen=True, slots=True)
class Drained:
    """`events` drained in `seconds` after the writing had ended; CPU seconds by role over that time."""

    events: int
    seconds: float
    cpu_s: dict[str, float]
    memory_mb: dict[str, float]

    @property
    def rate(self) -> float:
        return self.events / self.seconds

    def per_million(self) -> dict[str, float]:
        """CPU seconds per million events by role."""
        return {role: s * 1e6 / self.events for role, s in self.cpu_s.items()}


def drain(under: System, count: int, seed: int, say: Callable[[str], None]) -> Drained:
    """Write `count` events and wait until they are through."""
    rate = 50_000.0
    start_ms = int(time.time() * 1000) - int(count / rate * 1000)
    made = events(seed, rate=rate, start_ms=start_ms, run=f"b{int(time.time() * 1000):x}")
    records = [Outgoing(under.topic, r.user_id.encode(), r.value) for r in itertools.islice(made, count)]
    say(f"{count} events made; writing")
    target = under.end() + count
    for i in range(0, count, _CHUNK):
        under.producer.send(records[i : i + _CHUNK], 60.0)
    del records
    started, done = time.monotonic(), under.done()
    before = machine.cpu_by_role(under.processes())
    left = target - done
    say(f"written; {left} to drain")
    moved_at = started
    memory: dict[str, float] = {}
    while (now_done := under.done()) < target:
        if now_done > done:
            done, moved_at = now_done, time.monotonic()
        if time.monotonic() - moved_at > _STUCK_S:
            raise TimeoutError(f"nothing has moved for {_STUCK_S:.0f} s, {target - done} events are left")
        if not memory and now_done > target - left / 2:
            memory = machine.memory_mb(under.processes())
        time.sleep(0.1)
    seconds = time.monotonic() - started
    cpu = machine.spent(before, machine.cpu_by_role(under.processes()))
    return Drained(left, seconds, cpu, memory)
