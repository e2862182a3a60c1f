"""The state of one task: its process, what waits for it, what it has not acked, and its counters.

Holds and counts; the hub decides. What waits is kept with its identity until it is written, so that a
process that dies takes with it only what it was given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from localstorm.acker import Trees
from localstorm.grouping import Chooser
from localstorm.plan import ComponentPlan
from localstorm.process import Child
from localstorm.spouting import SpoutState
from localstorm.wire import Framer, Values

Delivery = tuple[int, bytes, Values, Trees]
"""A tuple that waits for a task: its id, the head of its message, its raw values, its trees."""


class Faults(Protocol):
    """Scripted faults of one component (see testing.py)."""

    def delivering(self) -> bool:
        """Asked for each tuple about to be written; True kills the process once it is."""

    def acking(self) -> str | None:
        """Asked for each ack that arrives: None, or "crash", "fail" or "lose"."""


class Route(NamedTuple):
    """One subscription to a stream: the consumer's tasks, and who of them gets a tuple (None: direct)."""

    tasks: Sequence[Task]
    choose: Chooser | None


class Counters:
    """What a task has done since the start. Times are in seconds."""

    __slots__ = ("acked", "busy", "emitted", "failed", "latency", "restarts", "transferred")

    def __init__(self) -> None:
        self.emitted = 0
        self.transferred = 0
        self.acked = 0
        self.failed = 0
        self.latency = 0.0
        """Sum over acked tuples: process latency of a bolt, complete latency of a spout."""
        self.busy = 0.0
        self.restarts = 0


class Task:
    """One task of the topology, alive or waiting to be restarted."""

    def __init__(self, component: ComponentPlan, number: int, index: int, spout: SpoutState | None) -> None:
        self.component = component
        self.name = component.name
        self.foreign = component.foreign
        self.id = number
        self.index = index
        self.spout = spout
        self.routes: dict[str, list[Route]] = {}
        self.middles: dict[str, bytes] = {}
        self.tick: bytes | None = None
        self.tick_every = 0.0
        self.tick_at = 0.0
        self.faults: Faults | None = None
        self.counters = Counters()
        self.metrics: dict[str, object] = {}
        # What waits for it; stays when its process dies.
        self.outbox: deque[Delivery] = deque()
        self.outbox_bytes = 0
        self.over = False
        self.flooded = False
        self.attempts = 0
        self.restart_at: float | None = None
        self.warned: set[str] = set()
        # What belongs to the present process.
        self.child: Child | None = None
        self.reset(0.0)

    def reset(self, now: float) -> None:
        """Forgets all that belonged to a process, ready for the next."""
        self.framer = Framer()
        self.control: deque[bytes] = deque()
        self.partial: memoryview | None = None
        self.inflight: dict[int, tuple[Trees, float]] = {}
        self.busy_since = now
        self.started = now
        self.heard = now
        self.greeted = False
        """Whether it has answered the handshake with its pid."""
        self.ready = False
        """Whether it has answered its first heartbeat or activate: it is initialized."""
        self.heartbeat_open = False
        self.heartbeat_at = 0.0
        self.reading = False
        self.writing = False
        self.mute_since: float | None = None
        """When it closed its stdout."""
        self.doomed: str | None = None
        """Why it is being killed; nothing it says counts from then on."""
        self.error: tuple[float, str] | None = None
        self.error_shown = False
        self.stderr_tail: deque[str] = deque(maxlen=40)
        self.stderr_rest = b""

    @property
    def state(self) -> str:
        """One word for the statistics."""
        if self.child is None:
            return "down"
        return "running" if self.ready else "starting"

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"{self.name} task {self.id}"
