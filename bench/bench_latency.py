"""Latency: from the time an event was meant to be sent until it can be queried, under a steady load.

Open loop: probes are due on a fixed schedule and their latency counts from that time, however late they were sent.
A probe is visible when its user's timeline in Redis holds it. Probes that never become visible count as failures.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import orjson

from bench import machine
from bench.system import System
from clicktide import keys
from clicktide.log.port import Outgoing
from clicktide.redisstore.client import connect
from clicktide.shards import shard_of

_POLL_S = 0.002
_GIVE_UP_S = 20.0

Send = Callable[[str, bytes], None]


@dataclass(frozen=True, slots=True)
class Latency:
    """Latencies of all probes in ms, sorted; `never` of `sent` were not seen; `load` is what the generator said."""

    ms: list[float]
    sent: int
    never: int
    late_sends: int
    cpu_s: dict[str, float]
    seconds: float
    load: str

    def percentile(self, q: float) -> float:
        return self.ms[min(len(self.ms) - 1, int(q * len(self.ms)))] if self.ms else float("inf")


def latency(under: System, env: str, rate: int, seconds: int, probes_per_s: int, to: str) -> Latency:
    """Measure for `seconds` with `rate` events/s beside the probes; `to` is `http` (the collector) or `log`."""
    target = under.url if to == "http" else "kafka"
    command = [
        sys.executable,
        "-P",
        "-m",
        "cli.main",
        "generate",
        "--rate",
        str(rate),
        "--seconds",
        str(seconds + 4),
    ]
    command += ["--seed", "7", "--truth", "/dev/null", "--to", target, "-e", env]
    environ = dict(os.environ)
    if env == "embedded":
        environ |= {
            k.upper().replace("TIDE.", "TIDE_").replace(".", "_"): str(v)
            for k, v in under.settings.options().items()
        }
    load = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        time.sleep(3.0)
        before = machine.cpu_by_role(under.processes())
        found = _probe(under, seconds, probes_per_s, _sender(under, to))
        cpu = machine.spent(before, machine.cpu_by_role(under.processes()))
        said = load.communicate(timeout=60)[0]
    finally:
        if load.poll() is None:
            load.terminate()
            load.wait()
    ms, sent, late = found
    summary = " | ".join(line for line in said.splitlines() if line.startswith(("sent", "accepted", "from")))
    return Latency(sorted(ms), sent, sent - len(ms), late, cpu, seconds, summary)


def _sender(under: System, to: str) -> Send:
    if to == "log":

        def write(user: str, value: bytes) -> None:
            under.producer.send([Outgoing(under.topic, user.encode(), value)], 10.0)

        return write
    client = httpx.Client(base_url=under.url, timeout=10.0)

    def post(_user: str, value: bytes) -> None:
        client.post(
            "/v1/events", content=value, headers={"content-type": "application/json"}
        ).raise_for_status()

    return post


def _probe(under: System, seconds: int, per_s: int, send: Send) -> tuple[list[float], int, int]:
    """Sends probes from a few threads (a slow answer must not delay the next one), watches from another."""
    namespace, shards = under.settings.text("redis.namespace"), under.settings.integer("shards.count")
    run = f"p{int(time.time() * 1000):x}"
    waiting: dict[str, float] = {}
    ms: list[float] = []
    over = threading.Event()
    start = time.time() + 0.2
    count = seconds * per_s
    late = [0]
    threads = 4

    def sending(which: int) -> None:
        for i in range(which, count, threads):
            due = start + i / per_s
            if (pause := due - time.time()) > 0:
                time.sleep(pause)
            elif pause < -0.05:
                late[0] += 1
            user = f"{run}-{i}"
            event = {
                "event_id": user,
                "type": "view",
                "user_id": user,
                "occurred_at": int(due * 1000),
                "item_id": "1",
            }
            waiting[keys.timeline(namespace, shard_of(user, shards), user)] = due
            send(user, orjson.dumps(event))

    def watching() -> None:
        client = connect(under.settings)
        while not (over.is_set() and not waiting):
            names = list(waiting)[:400]
            if names:
                with client.pipeline(transaction=False) as pipe:
                    for name in names:
                        pipe.exists(name)
                    there = pipe.execute()
                now = time.time()
                for name, found in zip(names, there, strict=True):
                    if found:
                        ms.append((now - waiting.pop(name)) * 1000)
            if over.is_set() and time.time() - start > seconds + _GIVE_UP_S:
                return
            time.sleep(_POLL_S)

    senders = [threading.Thread(target=sending, args=(n,)) for n in range(threads)]
    watcher = threading.Thread(target=watching)
    watcher.start()
    for t in senders:
        t.start()
    for t in senders:
        t.join()
    over.set()
    watcher.join()
    return ms, count, late[0]
