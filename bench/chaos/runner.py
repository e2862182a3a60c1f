"""One chaos run: traffic, the schedule's faults, the drain, the ledgers.

Promises: every fault is undone before the drain, however the run ends; no process of the run is left; a run passes only
if each truth's ledger balances, nothing but malformed records is dead, and nothing waits any more.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from bench.chaos import traffic
from bench.chaos.faults import Hand, Site
from bench.chaos.plan import Fault
from bench.chaos.probes import GIVE_UP_S, Parked, phases
from bench.chaos.report import Outcome
from bench.chaos.scenario import PROBES_A_SECOND
from bench.chaos.traffic import TIDE, Load, Sending
from clicktide import topics
from clicktide.errors import ClicktideError
from clicktide.log import open_log
from clicktide.log.port import TopicPartition
from clicktide.settings import Settings
from deploy.embedded.progress import READ_BY_TOPOLOGIES, Position, positions

TICK_S = 0.05
BEGIN_S = 60.0  # until the senders' first records are accepted
SENDERS_S = 90.0  # after the faults, for what they have not sent yet
# A drain that moves nothing for so long has failed: the 10m tier, which a record has got to that met a fault at each of its
# attempts, may wait for 600, and Storm for two minutes for a worker.
STUCK_S = 720.0
LEDGER_WAIT_S = 60.0


class Place(Site, Protocol):
    """A `Site` that can be run on: `tend` restarts what died, `published` may raise OSError."""

    settings: Settings
    url: str

    def tend(self) -> None: ...
    def published(self, topic: str) -> Mapping[str, str]: ...
    def replays(self) -> int: ...
    def restarts(self) -> int: ...


class Run:
    """`where` is the environment's options on a command line, `folder` takes truths and logs; `phases` (s after the traffic's
    begin) are measured by probes, where there are any."""

    def __init__(
        self,
        site: Place,
        faults: Sequence[Fault],
        load: Load,
        outcome: Outcome,
        *,
        where: Sequence[str],
        folder: Path,
        environ: Mapping[str, str],
        say: Callable[[str], None],
        phases: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        self.phases = phases or {}
        self.site, self.load, self.outcome, self.say = site, load, outcome, say
        self.where, self.folder, self.environ = where, folder, environ
        self.hand = Hand(site, faults, say)
        self.senders: list[Sending] = []
        self._told_at = 0.0
        self._before: tuple[dict[str, int], int, int] = {}, 0, 0

    def run(self) -> Outcome:
        """Raises `ClicktideError` when the log cannot be asked before the traffic begins."""
        try:
            # A place may have had runs before.
            self._before = self._ends(), self.site.replays(), self.site.restarts()
            self._traffic_and_faults()
            self._drain(time.monotonic())
            self._count()
            # Probes are in no truth.
            alone = self.outcome.env == "embedded" and not self.phases
            self._ledger("all", self._merged(), "--only" if alone else "")
            for sender in self.senders:
                if sender.name == "file":
                    self._ledger(sender.name, sender.truth)
        finally:
            self.hand.heal()
            for sender in self.senders:
                sender.end()
        return self.outcome

    # -- the storm

    def _traffic_and_faults(self) -> None:
        self.senders = traffic.start(self.load, self.where, self.site.url, self.folder, self.environ)
        self._until(lambda: all(s.begun() or s.code() is not None for s in self.senders), BEGIN_S)
        parked = Parked(self.phases, self._retried)
        with probing(self.phases, self.site.url, self.folder, self.environ, self.outcome):
            start = time.monotonic()
            last = max((end for _, end in self.phases.values()), default=0.0)
            while self.hand.busy() or time.monotonic() - start < last:
                self.hand.tick(time.monotonic() - start)
                parked.look(time.monotonic() - start)
                self._step(f"{time.monotonic() - start:.0f} s of {self.load.seconds:g}")
            parked.look(float("inf"))
        for name, count in parked.counts().items():
            self.outcome.phases[name]["retried"] = count
        self.outcome.faults, self.outcome.missed = dict(self.hand.done), len(self.hand.missed)
        if not self._until(
            lambda: all(s.code() is not None for s in self.senders), self.load.seconds + SENDERS_S
        ):
            self.outcome.problems.append("traffic did not end")
        for sender in self.senders:
            if sender.code() != 0:
                self.outcome.problems.append(f"traffic {sender.name}: code {sender.code()}, {sender.said()}")

    def _until(self, done: Callable[[], bool], patience_s: float) -> bool:
        until = time.monotonic() + patience_s
        while not done():
            if time.monotonic() > until:
                return False
            self._step("waiting for the traffic")
        return True

    def _step(self, what: str) -> None:
        self.site.tend()
        if time.monotonic() - self._told_at > 10:
            self._told_at = time.monotonic()
            self.say(what)
        time.sleep(TICK_S)

    # -- the calm

    def _drain(self, healed: float) -> None:
        admin = open_log(self.site.settings).admin()
        least, since = None, healed
        try:
            while True:
                left = self._left(admin)
                now = time.monotonic()
                if left == 0:
                    self.outcome.recovery_s = round(now - healed, 1)
                    return
                if left is not None and (least is None or left < least):
                    least, since = left, now
                if now - since > STUCK_S:
                    self.outcome.problems.append(f"not drained: {left} records wait")
                    return
                for _ in range(6):
                    self._step(f"draining, {'?' if left is None else left} records wait")
        finally:
            admin.close()

    def _left(self, admin: object) -> int | None:
        try:
            return sum(p.lag for p in self._positions(admin, READ_BY_TOPOLOGIES))
        except (ClicktideError, OSError):
            return None

    def _positions(self, admin: object, names: Sequence[str]) -> list[Position]:
        prefix, group = self.site.settings.text("topics.prefix"), self.site.settings.text("group")
        return positions(admin, group, [prefix + n for n in names], self._published)  # type: ignore[arg-type]

    def _published(self, topic: str) -> Mapping[str, str]:
        return self.site.published(topic)

    def _count(self) -> None:
        o = self.outcome
        before, replays, restarts = self._before
        ends = {name: end - before[name] for name, end in self._ends().items()}
        kinds, ids = _truths(self.senders)
        o.events, o.retried, o.dead = (
            ends[topics.EVENTS],
            sum(ends[n] for n in topics.RETRY),
            ends[topics.DEAD],
        )
        o.malformed, o.duplicates = kinds, max(0, ends[topics.EVENTS] - kinds - ids)
        o.replays, o.restarts = self.site.replays() - replays, self.site.restarts() - restarts

    def _retried(self) -> int | None:
        """How many records the retry topics have had; None while the log is away."""
        try:
            ends = self._ends()
        except ClicktideError:
            return None
        return sum(ends[name] for name in topics.RETRY)

    def _ends(self) -> dict[str, int]:
        """How many records each topic has had."""
        prefix = self.site.settings.text("topics.prefix")
        admin = open_log(self.site.settings).admin()
        try:
            known = admin.topics()
            names = [prefix + name for name in topics.ALL]
            places = [TopicPartition(n, p) for n in names if n in known for p in range(known[n].partitions)]
            bounds = admin.bounds(places)
        finally:
            admin.close()
        return {
            name: sum(end for place, (_, end) in bounds.items() if place.topic == prefix + name)
            for name in topics.ALL
        }

    def _merged(self) -> Path:
        """All truths as one: they share users, and each knows only its own duplicates."""
        merged = self.folder / "truth.jsonl"
        with merged.open("wb") as out:
            for sender in self.senders:
                # A torn last line is no record.
                out.write(
                    b"".join(x for x in sender.truth.read_bytes().splitlines(True) if x.endswith(b"\n"))
                )
        return merged

    def _ledger(self, name: str, truth: Path, *more: str) -> None:
        words = [word for word in (*more, *self.where) if word]
        command = [*TIDE, "ledger", str(truth), "--json", "--wait", f"{LEDGER_WAIT_S:g}", *words]
        out = self.folder / f"{name}.ledger.json"
        with out.open("wb") as file, (self.folder / f"{name}.ledger.log").open("wb") as log:
            judge = subprocess.Popen(command, env=dict(self.environ), stdout=file, stderr=log)
        try:
            while judge.poll() is None:
                self._step(f"the ledger of {name}")
        finally:
            if judge.poll() is None:
                judge.terminate()
                judge.wait()
        self.outcome.ledgers[name] = judge.returncode == 0
        found = json.loads(out.read_bytes() or b'{"checks":[],"notes":[]}')
        for check in found["checks"]:
            if not check["ok"] or check["name"] == "rows by type":
                verdict = "ok" if check["ok"] else "FAIL"
                examples = f" (e.g. {'; '.join(check['examples'])})" if check["examples"] else ""
                line = f"{check['name']}: expected {check['expected']}, found {check['found']}{examples}"
                self.say(f"ledger {name}: {verdict} {line}")
        for note in found["notes"]:
            if "dead-lettered" in note:
                self.outcome.problems.append(f"{name}: {note}")
        self.say(f"ledger {name}: {'balanced' if judge.returncode == 0 else 'NOT balanced'}")


@contextmanager
def probing(
    wanted: Mapping[str, tuple[float, float]],
    url: str,
    folder: Path,
    environ: Mapping[str, str],
    outcome: Outcome,
) -> Iterator[None]:
    """Probes while the block runs, if there are phases to measure; what they found goes to the outcome."""
    if not wanted:
        yield
        return
    out = folder / "probes.jsonl"
    words = [url, f"{PROBES_A_SECOND:g}", str(out), outcome.env]
    command = [sys.executable, "-P", "-m", "bench.chaos.probes", *words]
    began = time.time()
    with (folder / "probes.log").open("wb") as log:
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=log, env=dict(environ), start_new_session=True
        )
    try:
        yield
    finally:
        try:
            child.communicate(timeout=GIVE_UP_S + 10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    if child.returncode != 0:
        outcome.problems.append(f"the probes failed; see {folder / 'probes.log'}")
    borders = {name: (began + a, began + b) for name, (a, b) in wanted.items()}
    outcome.phases = phases(out.read_text("utf-8").splitlines() if out.exists() else [], borders)


def _truths(senders: Sequence[Sending]) -> tuple[int, int]:
    """Of all truths: malformed records, and distinct events."""
    malformed, ids = 0, set()
    for sender in senders:
        for raw in sender.truth.read_bytes().splitlines():
            try:
                line = json.loads(raw)
            except ValueError:
                continue  # torn
            if line["kind"] == "malformed":
                malformed += 1
            elif line["event"]:
                ids.add(line["event"]["event_id"])
    return malformed, len(ids)
