"""Queries: how long timelines and profiles take at a steady rate while events flow, and what a query costs.

A query service of its own is started over the system's stores, so that its CPU time is the queries' alone. Three processes make
the load: the events, the queries, and this one, which only looks. On one machine all of them share the cores: each has a session of its
own, the events give way as the topologies do, and the queries, whose clock is the measure, get the core soon.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import orjson
from prometheus_client.parser import text_string_to_metric_families

from bench import machine
from bench.generator import events
from bench.system import System
from clicktide.errors import ClicktideError
from clicktide.log.port import Outgoing

_LEAD_S = 1.0  # events flow for so long before the first query
_STUCK_S = 120.0
_CHUNK = 2000
_SECONDS = "clicktide_http_request_seconds"


@dataclass(frozen=True, slots=True)
class Queried:
    """Latencies in ms by path, sorted; `taken_ms` of all, until the load had the answer; `cpu_s` of all roles over `seconds`, `service_cpu_s` of the query service alone."""

    ms: dict[str, list[float]]
    taken_ms: list[float]
    status: dict[str, int]
    late: int
    failed: int
    degraded: int
    seconds: float
    service_cpu_s: float
    cpu_s: dict[str, float]
    load: str
    within: dict[float, float]
    """The service's own clock, from a request's head to the end of its answer: s -> share of answers."""

    @property
    def answers(self) -> int:
        return sum(map(len, self.ms.values()))

    @property
    def all_ms(self) -> list[float]:
        return sorted(itertools.chain.from_iterable(self.ms.values()))


def percentile(ms: list[float], q: float) -> float:
    """Of sorted values; infinite where there are none."""
    return ms[min(len(ms) - 1, int(q * len(ms)))] if ms else float("inf")


def queries(
    under: System,
    env: str,
    rate: float,
    seconds: float,
    events_per_s: float,
    before: int,
    warm: float,
    mix: str,
    say: Callable[[str], None],
) -> Queried:
    """Measure for `seconds` at `rate`, with `events_per_s` flowing by the log and `before` events stored beforehand."""
    _fill(under, before, say)
    with (
        _service(under, env) as (service, url),
        _events(under, env, events_per_s, warm + seconds) as generator,
    ):
        say(f"the query service answers at {url}; {warm:g} s to warm up, then {seconds:g} s that count")
        command = [sys.executable, "-P", "-m", "bench.query_load", url, "--rate", str(rate), "--mix", mix]
        command += ["--seconds", str(seconds), "--warm", str(warm)]
        load = subprocess.Popen(command, stdout=subprocess.PIPE, env=_environ(under), start_new_session=True)
        try:
            time.sleep(warm)
            first, own, times = machine.cpu_by_role(under.processes()), _cpu(service), _times(url)
            time.sleep(max(0.0, seconds - 0.5))
            cpu = machine.spent(first, machine.cpu_by_role(under.processes()))
            spent, looked, later = _cpu(service) - own, max(0.0, seconds - 0.5), _times(url)
            said = load.communicate(timeout=60)[0]
        finally:
            if load.poll() is None:
                load.kill()
            load.wait()
        if load.returncode:
            raise ClicktideError("the load of queries failed; see above")
        found = orjson.loads(said)
        share = found["seconds"] / looked
    return Queried(
        {path: sorted(ms) for path, ms in found["ms"].items()},
        sorted(found["taken_ms"]),
        found["status"],
        found["late"],
        found["failed"],
        found["degraded"],
        found["seconds"],
        spent * share,
        {role: s * share for role, s in cpu.items()},
        generator.said,
        _within(times, later),
    )


def _fill(under: System, count: int, say: Callable[[str], None]) -> None:
    if not count:
        return
    say(f"storing {count} events first")
    made = events(11, rate=1000.0, start_ms=int(time.time() * 1000) - count, run=f"q{time.time_ns():x}")
    records = (Outgoing(under.topic, r.user_id.encode(), r.value) for r in itertools.islice(made, count))
    while chunk := list(itertools.islice(records, _CHUNK)):
        under.producer.send(chunk, 60.0)
    target, done, moved_at = under.end(), 0, time.monotonic()
    while (now_done := under.done()) < target:
        if now_done > done:
            done, moved_at = now_done, time.monotonic()
        if time.monotonic() - moved_at > _STUCK_S:
            raise ClicktideError(f"nothing has moved for {_STUCK_S:.0f} s: is the topology running?")
        time.sleep(0.1)


def _environ(under: System) -> dict[str, str]:
    own = {k.upper().replace(".", "_"): str(v) for k, v in under.settings.options().items()}
    return {**os.environ, **own}


@contextmanager
def _service(under: System, env: str) -> Iterator[tuple[int, str]]:
    """A query service on a free port; its process id and its URL."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "services",
        "query",
        "--port",
        "0",
        "--host",
        "127.0.0.1",
        "-e",
        env,
    ]
    # In a session of its own, as the demo's: where the kernel shares the cores among sessions, the load must not count as its.
    process = subprocess.Popen(
        command, env=_environ(under), stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if "http://" not in line:
            raise ClicktideError("the query service did not start; see above")
        yield process.pid, line.split()[-1]
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class _Said:
    """What the load of events printed when it ended."""

    said = ""


@contextmanager
def _events(under: System, env: str, rate: float, seconds: float) -> Iterator[_Said]:
    """Events flow from here on for so long."""
    out = _Said()
    if not rate:
        yield out
        return
    command = [sys.executable, "-P", "-m", "bench.event_load", "--rate", str(rate), "-e", env]
    command += ["--seconds", str(seconds + _LEAD_S)]
    process = subprocess.Popen(
        command, env=_environ(under), stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "sending\n":
            raise ClicktideError("the load of events did not start; see above")
        time.sleep(_LEAD_S)
        yield out
        out.said = process.communicate(timeout=60)[0].strip()
        if process.returncode:
            raise ClicktideError("the load of events failed; see above")
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def _times(url: str) -> dict[float, float]:
    """The buckets of users' answers: within so many s -> how many."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    found: dict[float, float] = {}
    for sample in (s for f in families for s in f.samples if s.name == f"{_SECONDS}_bucket"):
        if sample.labels["route"].startswith("/v1/users/"):
            bound = float(sample.labels["le"])
            found[bound] = found.get(bound, 0.0) + sample.value
    return found


def _within(before: dict[float, float], after: dict[float, float]) -> dict[float, float]:
    grown = {bound: n - before.get(bound, 0.0) for bound, n in after.items()}
    total = max(grown.values(), default=0.0)
    return {bound: n / total for bound, n in grown.items() if total}


def _cpu(pid: int) -> float:
    return next((p.cpu_s for p in machine.processes() if p.pid == pid), 0.0)
