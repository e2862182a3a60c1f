"""Uploads: how many the collector takes on one core, one event or many a request, and how long each takes.

A collector of its own, with its own log, pinned to one core; the senders are pinned to another, if there is one. Closed loop: each
connection sends its next request when it has the answer to the last, so the rate is the collector's capacity, and the times are those at
full load. Its CPU seconds are read from /proc: beside other work they say more than the rate.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import httpx

from bench.generator import events
from bench.machine import TICKS
from clicktide import topics
from clicktide.errors import ClicktideError
from clicktide.log import open_log
from clicktide.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
WARM_S = 2.0
START_S = 60.0
_POOL = 50_000  # different events; then the same come again: the collector does not look


@dataclass(slots=True)
class Uploads:
    """What one load found. `ms` are sorted; `cpu_s` is the collector's."""

    ms: list[float] = field(default_factory=list)
    events: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    status: Counter[int] = field(default_factory=Counter)

    def line(self) -> str:
        n = len(self.ms)
        if not n:
            return f"no request was accepted: {dict(self.status)}"
        p50, p99 = self.ms[n // 2], self.ms[int(n * 0.99)]
        return (
            f"{n / self.seconds:,.0f} requests/s, {self.events / self.seconds:,.0f} events/s;"
            f" p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {self.ms[-1]:.0f} ms;"
            f" CPU {self.cpu_s / self.seconds * 100:.0f} % of a core,"
            f" {n / self.cpu_s:,.0f} requests and {self.events / self.cpu_s:,.0f} events a CPU second;"
            f" status {', '.join(f'{code}: {count}' for code, count in sorted(self.status.items()))}"
        )


@contextmanager
def collector(bootstrap: str, say: Callable[[str], None]) -> Iterator[tuple[int, int]]:
    """A collector on a core of its own: (pid, port). `bootstrap` names a Kafka; "" for the embedded log."""
    with tempfile.TemporaryDirectory(prefix="clicktide-http-") as folder:
        given: dict[str, object] = {"log.path": f"{folder}/log.sqlite"}
        if bootstrap:
            prefix = f"bench{time.time_ns() // 1_000_000}."
            given = {"log.adapter": "confluent", "kafka.bootstrap": bootstrap, "topics.prefix": prefix}
        settings = Settings(given)
        prefix = settings.text("topics.prefix")
        admin = open_log(settings).admin()
        admin.create_topics({prefix + name: 4 for name in topics.ALL})
        admin.close()
        kept = {k: v for k, v in os.environ.items() if not k.startswith("TIDE_")}
        own = {"TIDE_" + k.upper().replace(".", "_"): str(v) for k, v in given.items()}
        path = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]), "TIDE_CONFIG": "none"}
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "services", "collector", "--port", "0"],
            env={**kept, **own, **path},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
            assert process.stdout is not None
            line = process.stdout.readline()
            if "http://" not in line:
                raise ClicktideError("the collector did not start")
            port = int(line.rsplit(":", 1)[1])
            _ready(port)
            say(f"the collector answers (pid {process.pid})")
            yield process.pid, port
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def bodies(batch: int) -> list[bytes]:
    """Bodies of `batch` generated events each: one object, or one a line."""
    records = events(1, rate=1000.0, start_ms=time.time_ns() // 1_000_000 - 60_000, run="bench")
    count = max(1, min(_POOL // batch, 5000))
    return [b"\n".join(r.value for r in islice(records, batch)) for _ in range(count)]


def uploads(pid: int, port: int, batch: int, connections: int, seconds: float) -> Uploads:
    """Load with `connections` for `seconds`, after a warm-up that does not count."""
    if len(cores := os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(0, {max(cores)})
    try:
        return asyncio.run(_load(pid, port, batch, connections, seconds))
    finally:
        os.sched_setaffinity(0, cores)


async def _load(pid: int, port: int, batch: int, connections: int, seconds: float) -> Uploads:
    kind = "application/json" if batch == 1 else "application/x-ndjson"
    head = (
        f"POST /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: %d\r\n\r\n"
    )
    requests = [(head % len(body)).encode() + body for body in bodies(batch)]
    found = Uploads()
    start = time.perf_counter() + WARM_S
    end = start + seconds

    async def connection(first: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        at = first
        while (sent := time.perf_counter()) < end:
            writer.write(requests[at % len(requests)])
            at += connections
            status = await _answer(reader)
            now = time.perf_counter()
            if sent >= start and now <= end:
                found.status[status] += 1
                if status == 202:
                    found.ms.append((now - sent) * 1000)
                    found.events += batch
        writer.close()

    async def meter() -> None:
        await asyncio.sleep(start - time.perf_counter())
        before, at = cpu_of(pid), time.perf_counter()
        await asyncio.sleep(end - time.perf_counter())
        found.cpu_s, found.seconds = cpu_of(pid) - before, time.perf_counter() - at

    await asyncio.gather(meter(), *(connection(i) for i in range(connections)))
    found.ms.sort()
    return found


async def _answer(reader: asyncio.StreamReader) -> int:
    """Reads one answer; its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    lower = head.lower()
    at = lower.index(b"content-length:") + 15
    await reader.readexactly(int(lower[at : lower.index(b"\r\n", at)]))
    return int(head[9:12])


def cpu_of(pid: int) -> float:
    """CPU seconds of a process, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _ready(port: int) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health/ready").status_code == 200:
                return
        except httpx.HTTPError:
            pass
        if time.monotonic() > deadline:
            raise ClicktideError(f"the collector was not ready after {START_S:g} s")
        time.sleep(0.1)
