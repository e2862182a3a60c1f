"""Runs a topology in a test, with scripted crashes, and says what was emitted, acked, failed and replayed.

    result = run_topology(project, faults=[crash("count", after=3), fail_next("count", 2)])
    assert result.replayed("words") == {...}

The processes and the protocol are the real ones; only the faults are scripted, at points that do not depend on
timing. The run ends when the spouts have had nothing to emit for a while and nothing is on its way.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from localstorm.errors import LocalStormError
from localstorm.hub import Hub
from localstorm.logs import LogFiles
from localstorm.plan import Plan, Request, load
from localstorm.reporting import Reporter, Silence
from localstorm.settings import Settings
from localstorm.spouting import IDLE_MOST
from localstorm.stats import Sampler, Snapshot
from localstorm.task import Task
from localstorm.wire import Values

Moment = Literal["ack", "receive"]

SAMPLE_EVERY = 0.2
"""Seconds between the snapshots that `until` sees."""


@dataclass(frozen=True)
class Fault:
    """One scripted fault of a component, counted over all its tasks. Made by the functions below."""

    component: str
    kind: Literal["crash", "fail", "lose"]
    at: Moment
    first: int
    count: int = 1


def crash(component: str, *, after: int, at: Moment = "ack") -> Fault:
    """kill -9 of the task that handles the component's tuple number `after` (from 1), before its ack.

    At "ack" the work was done and what it emitted has left, then the ack is lost with the process. At
    "receive" the process dies as the tuple reaches its pipe, at whatever point of its work it is.
    """
    return Fault(component, "crash", at, after)


def fail_next(component: str, count: int = 1, *, after: int = 0) -> Fault:
    """Turns the component's next `count` acks into fails; the first `after` acks pass."""
    return Fault(component, "fail", "ack", after + 1, count)


def lose_ack(component: str, *, after: int = 0) -> Fault:
    """Loses one ack (the first `after` pass), so that the tree fails by its timeout."""
    return Fault(component, "lose", "ack", after + 1)


class ScriptedFaults:
    """The faults of one component, as the hub asks for them."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self._faults = list(faults)
        self._seen: Counter[str] = Counter()

    def delivering(self) -> bool:
        """Whether the process dies with this tuple."""
        return self._due("receive") is not None

    def acking(self) -> str | None:
        """What happens instead of this ack."""
        return self._due("ack")

    def _due(self, moment: Moment) -> str | None:
        self._seen[moment] += 1
        number = self._seen[moment]
        for fault in self._faults:
            if fault.at == moment and fault.first <= number < fault.first + fault.count:
                return fault.kind
        return None


@dataclass
class Result:
    """What happened. Message ids are those the spout gave, as decoded JSON made text by `str`."""

    stats: Snapshot
    emits: dict[str, list[tuple[str, list[Any]]]]
    """Component -> (stream, values) of each emit, in order; of the components asked for with `capture`."""
    spout_emits: dict[str, list[str]]
    """Spout -> message id of each reliable emit, in order."""
    outcomes: dict[str, list[tuple[str, str]]]
    """Spout -> (message id, "ack", "fail" or "timeout") of each tree, in order."""
    messages: list[tuple[str, str]] = field(default_factory=list)
    """(level, text) of what the console would have shown."""

    def values(self, component: str, stream: str = "default") -> list[list[Any]]:
        """The values a captured component emitted on one stream."""
        return [values for name, values in self.emits[component] if name == stream]

    def acked(self, spout: str) -> list[str]:
        """The message ids acked, in order."""
        return [key for key, outcome in self.outcomes[spout] if outcome == "ack"]

    def failed(self, spout: str) -> list[str]:
        """The message ids failed or timed out, in order."""
        return [key for key, outcome in self.outcomes[spout] if outcome != "ack"]

    def replayed(self, spout: str) -> dict[str, int]:
        """Message id -> how often it was emitted again."""
        return {key: times - 1 for key, times in Counter(self.spout_emits[spout]).items() if times > 1}

    def restarts(self, component: str) -> int:
        """How often processes of a component were replaced."""
        return self.stats.component(component).restarts


class _Recorder:
    def __init__(self, plan: Plan, capture: Sequence[str]) -> None:
        self.emits: dict[str, list[tuple[str, list[Any]]]] = {name: [] for name in capture}
        spouts = [component.name for component in plan.components if component.kind == "spout"]
        self.spout_emits: dict[str, list[str]] = {name: [] for name in spouts}
        self.outcomes: dict[str, list[tuple[str, str]]] = {name: [] for name in spouts}

    def emitted(self, task: Task, stream: str, message_id: bytes, values: Values) -> None:
        if task.name in self.emits:
            self.emits[task.name].append((stream, json.loads(bytes(values))))
        if message_id:
            self.spout_emits[task.name].append(str(json.loads(message_id)))

    def ended(self, task: Task, message_id: bytes, outcome: str) -> None:
        self.outcomes[task.name].append((str(json.loads(message_id)), outcome))


class _Quiet:
    """Ends a hub once nothing has happened for a while, or all is said, or time is over."""

    def __init__(self, quiet: float, timeout: float, until: Callable[[Snapshot], bool] | None) -> None:
        self._quiet = quiet
        self._timeout = timeout
        self._until = until
        self._since: float | None = None
        self._began: float | None = None
        self.timed_out = False
        self._stopping = False
        self._shown: Snapshot | None = None

    def __call__(self, hub: Hub) -> None:
        if self._began is None:
            self._began = hub.now
        if self._stopping:
            return
        if hub.now - self._began > self._timeout:
            self.timed_out = True
            hub.course.stop()
            hub.course.stop()
            self._stopping = True
        elif self._done(hub):
            hub.course.stop()
            self._stopping = True

    def _until_holds(self, snapshot: Snapshot | None) -> bool:
        if snapshot is None or snapshot is self._shown or not self._until:
            return False
        self._shown = snapshot
        return self._until(snapshot)

    def _done(self, hub: Hub) -> bool:
        if self._until:
            return self._until_holds(hub.reporter.latest)
        if not is_idle(hub):
            self._since = None
        elif self._since is None:
            self._since = hub.now
        return self._since is not None and hub.now - self._since >= self._quiet


def is_idle(hub: Hub) -> bool:
    """Whether nothing is on its way and no spout has had anything lately."""
    if hub.course.phase != "running" or len(hub.acker):
        return False
    for task in hub.tasks:
        if not task.ready or task.outbox or task.inflight or task.control:
            return False
        if task.spout and not (task.spout.active and task.spout.idle >= IDLE_MOST):
            return False
        # It may still have to hear of a failed tree, and then has something after all.
        if task.spout and any(command != "next" for command in task.spout.waiting):
            return False
    return True


def run_topology(
    project: Path,
    name: str | None = None,
    *,
    log_dir: Path | None = None,
    options: Mapping[str, object] | None = None,
    env: str | None = None,
    par: Mapping[str, int] | None = None,
    faults: Sequence[Fault] = (),
    capture: Sequence[str] = (),
    until: Callable[[Snapshot], bool] | None = None,
    quiet: float = 0.3,
    timeout: float = 60.0,
    drain: float = 10.0,
) -> Result:
    """Runs a topology until it is quiet for `quiet` seconds, or `until` holds of a snapshot (five a second).

    `options` are `-o` options; logs go to `log_dir` (default PROJECT/logs). Raises TimeoutError with the last
    messages after `timeout` seconds, LocalStormError if it cannot run. Times are in seconds.
    """
    texts = tuple(f"{key}={json.dumps(value)}" for key, value in (options or {}).items())
    plan = load(Request(project=project, name=name, env=env, options=texts, par=dict(par or {})))
    known = {component.name for component in plan.components}
    unknown = ({fault.component for fault in faults} | set(capture)) - known
    if unknown:
        raise LocalStormError(f"no component {', '.join(sorted(unknown))} in topology {plan.name}")
    recorder = _Recorder(plan, capture)
    settings = Settings(
        plan=plan,
        project=project.resolve(),
        log_dir=log_dir or project.resolve() / "logs",
        drain=drain,
        faults={
            name: ScriptedFaults(fault for fault in faults if fault.component == name)
            for name in {fault.component for fault in faults}
        },
        observe=recorder.emitted,
        observe_outcome=recorder.ended,
    )
    console = Silence()
    reporter = Reporter(
        console,
        LogFiles(settings.log_dir, plan.name),
        Sampler(plan.name, time.monotonic()),
        None,
        sample_every=SAMPLE_EVERY,
    )
    hub = Hub(settings, reporter)
    watch = _Quiet(quiet, timeout, until)
    hub.run(watch)
    if watch.timed_out:
        said = "".join(f"\n  {level}: {text}" for level, text in console.lines[-20:])
        raise TimeoutError(f"topology {plan.name} was not done within {timeout:g} s{said}")
    assert hub.reporter.latest
    return Result(hub.reporter.latest, recorder.emits, recorder.spout_emits, recorder.outcomes, console.lines)
