"""Probes: how long an event takes to become visible while a run goes on, by phases of the run.

`python -m bench.chaos.probes URL RATE FILE ENV` posts RATE events a second on a fixed schedule until its standard input ends, and
writes a JSON line `{"due", "ms"}` (s since the epoch; null: never seen) for each. Promises: an open loop, the time that
counts is when a probe was due, and none is left out.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import httpx
import orjson

from clicktide import keys
from clicktide.errors import ClicktideError
from clicktide.redisstore.client import connect, errors_named
from clicktide.settings import Settings
from clicktide.shards import shard_of

POLL_S = 0.002
GIVE_UP_S = 30.0
THREADS = 4


def percentile(ms: Sequence[float], q: float) -> float:
    """The smallest of these that at least a share `q` of them does not exceed; infinite without any."""
    ordered = sorted(ms)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else float("inf")


def phases(lines: Sequence[str], borders: Mapping[str, tuple[float, float]]) -> dict[str, dict[str, float]]:
    """By phase (from, to, s since the epoch, by when probes were due): how many, how many were never seen, p50 and p99 in ms."""
    found = [json.loads(line) for line in lines]
    out: dict[str, dict[str, float]] = {}
    for name, (begin, end) in borders.items():
        its = [probe["ms"] for probe in found if begin <= probe["due"] < end]
        seen = [ms for ms in its if ms is not None]
        out[name] = {
            "probes": len(its),
            "never": len(its) - len(seen),
            "p50_ms": round(percentile(seen, 0.5)),
            "p99_ms": round(percentile(seen, 0.99)),
        }
    return out


class Parked:
    """How many records were written to the retry topics in each phase (from, to, s after the begin). `written` answers how many
    there have been so far, None while nobody can say."""

    def __init__(self, borders: Mapping[str, tuple[float, float]], written: Callable[[], int | None]) -> None:
        self._borders, self._written = borders, written
        self._waiting = sorted({at for pair in borders.values() for at in pair})
        self._at: dict[float, int] = {}

    def look(self, now: float) -> None:
        """Asks when a border has been passed; one that cannot be had is asked for again."""
        if self._waiting and now >= self._waiting[0] and (found := self._written()) is not None:
            while self._waiting and now >= self._waiting[0]:
                self._at[self._waiting.pop(0)] = found

    def counts(self) -> dict[str, int]:
        """Those phases of which both borders are known."""
        at = self._at
        return {n: at[b] - at[a] for n, (a, b) in self._borders.items() if a in at and b in at}


class Probing:
    """Sends from a few threads (a slow answer must not delay the next probe), watches from one."""

    def __init__(self, settings: Settings, url: str, rate: float, out: TextIO) -> None:
        self._settings, self._rate, self._out = settings, rate, out
        self._client = httpx.Client(base_url=url, timeout=10.0)
        self._run = f"p{time.time_ns() // 1_000_000:x}"
        self._waiting: dict[str, float] = {}
        self._over = threading.Event()

    def run(self) -> None:
        start = time.time() + 0.2
        senders = [
            threading.Thread(target=self._send, args=(start, which), daemon=True) for which in range(THREADS)
        ]
        watcher = threading.Thread(target=self._watch, daemon=True)
        for thread in (watcher, *senders):
            thread.start()
        sys.stdin.read()
        self._over.set()
        for thread in (*senders, watcher):
            thread.join()

    def _send(self, start: float, which: int) -> None:
        namespace = self._settings.text("redis.namespace")
        shards = self._settings.integer("shards.count")
        i = which
        while not self._over.is_set():
            due = start + i / self._rate
            if (pause := due - time.time()) > 0 and self._over.wait(pause):
                return
            user = f"{self._run}-{i}"
            event = {"event_id": user, "type": "view", "user_id": user, "occurred_at": int(due * 1000)}
            self._waiting[keys.timeline(namespace, shard_of(user, shards), user)] = due
            try:
                self._client.post("/v1/events", content=orjson.dumps(event))
            except httpx.HTTPError as e:
                print(f"{user}: {e}", file=sys.stderr)
            i += THREADS

    def _watch(self) -> None:
        client = connect(self._settings)
        while self._waiting or not self._over.is_set():
            names = list(self._waiting)[:400]
            there: list[Any] = []
            if names:
                try:
                    with errors_named(), client.pipeline(transaction=False) as pipe:
                        for name in names:
                            pipe.exists(name)
                        there = pipe.execute()
                except ClicktideError:
                    there = [0] * len(names)
            self._note(names, there)
            time.sleep(POLL_S)

    def _note(self, names: Sequence[str], there: Sequence[Any]) -> None:
        now = time.time()
        for name, found in zip(names, there, strict=True):
            due = self._waiting[name]
            if found or now - due > GIVE_UP_S:
                del self._waiting[name]
                ms = (now - due) * 1000 if found else None
                self._out.write(json.dumps({"due": due, "ms": ms}) + "\n")
                self._out.flush()


def main() -> None:
    from cli.context import settings_for

    url, rate, file, env = sys.argv[1:5]
    with Path(file).open("w", encoding="utf-8") as out:
        Probing(settings_for(env), url, float(rate), out).run()


if __name__ == "__main__":
    main()
