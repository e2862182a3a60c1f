"""Scaling while events flow, on a real Storm: two workers, `storm rebalance` in the middle, and one worker killed.

Promises: what it sets up of its own is gone afterwards; the answer is the ledger's, over every event that was sent.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.chaos.stack_run import environment, stack_settings, submit, write_project
from clicktide import keys
from clicktide.errors import ClicktideError
from clicktide.settings import from_environment, options_of
from clicktide.topics import EVENTS
from deploy.prepare import make_topics, migrate_shards
from deploy.stack.servers.storm import worker_processes
from deploy.stack.settings import StackSettings
from deploy.stack.stack import Stack

TOPOLOGIES = ("events", "redrive")
TRUTH = "truth.jsonl"
WORKERS_UP_S = 400.0  # on a machine that has much else to do
LEDGER_WAIT_S = 1200.0
REBALANCE_S = 120.0
_TIDE = (sys.executable, "-P", "-m", "cli.main")
_LOOK_S = 0.2

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Course:
    """What happens when: records and records a second, and the seconds after the first at which persist gets `persist`
    executors and a worker of `events` is killed."""

    records: int = 200_000
    rate: float = 2000.0
    rebalance_s: float = 20.0
    kill_s: float = 40.0
    persist: int = 2
    seed: int = 1


@dataclass(slots=True)
class Result:
    """`steps`: (seconds after the first record, what was done)."""

    seconds: float = 0.0
    workers: int = 0
    steps: list[tuple[float, str]] = field(default_factory=list)
    ledger: dict[str, Any] = field(default_factory=dict)

    @property
    def balanced(self) -> bool:
        return bool(self.ledger.get("balanced"))

    def lines(self) -> Iterator[str]:
        yield f"{self.workers} workers"
        for at, what in self.steps:
            yield f"{at:6.1f} s  {what}"
        for check in self.ledger.get("checks", []):
            verdict = "ok  " if check["ok"] else "FAIL"
            yield f"{verdict} {check['name']}: expected {check['expected']}, found {check['found']}"
        yield f"ledger {'balanced' if self.balanced else 'NOT balanced'}, {self.seconds:.0f} s after the first record"


@contextmanager
def own_stack(root: Path, project: Path, say: Say) -> Iterator[StackSettings]:
    """A stack below `root`, on free ports, ended with the block."""
    own = stack_settings(root, project)
    stack = Stack(own, say)
    try:
        stack.up()
        yield own
    finally:
        stack.down()


@contextmanager
def topologies(
    own: StackSettings, root: Path, project: Path, say: Say, names: Sequence[str] = TOPOLOGIES
) -> Iterator[dict[str, str]]:
    """These topologies on two workers each of a running stack; gives the environment for commands against them."""
    config = json.loads((project / "config.json").read_text("utf-8"))
    config["envs"]["stack"]["options"].update({"topology.workers": 2, "topology.message.timeout.secs": 30})
    ports = {
        "kafka": own.kafka_port,
        "redis": own.redis_port,
        "mariadb-1": own.mariadb_1_port,
        "mariadb-2": own.mariadb_2_port,
    }
    config_file = write_project(root, project, config, own, ports)
    settings = from_environment({}, options_of(config_file, "stack"))
    make_topics(settings)
    migrate_shards(settings)
    environ = environment(project, own, config_file)
    try:
        for name in names:
            submit(name, root, project, environ, say)
        _wait_for(lambda: all(len(workers_of(own, name)) >= 2 for name in names), "two workers")
        yield environ
    finally:
        for name in names:
            with suppress(ClicktideError):
                _storm(project, environ, "kill", name, "-w", "0")
        with suppress(ClicktideError):
            _wait_for(lambda: not any(workers_of(own, name) for name in names), "the end of the workers")


@contextmanager
def traffic(root: Path, environ: Mapping[str, str], course: Course) -> Iterator[Callable[[], None]]:
    """Records flow into the log from here on, the first is there; the call waits until all are sent."""
    truth, log = root / TRUTH, root / "generate.log"
    seconds = course.records / course.rate
    words = ["--rate", f"{course.rate:g}", "--seconds", f"{seconds:g}", "--seed", str(course.seed)]
    mix = ["--duplicates", "0.01", "--malformed", "0.001", "--orders", "0.08"]
    with log.open("wb") as out:
        sender = subprocess.Popen(
            [*_TIDE, "generate", *words, *mix, "--to", "kafka", "-e", "stack", "--truth", str(truth)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=dict(environ),
            start_new_session=True,
        )

    def wait() -> None:
        if (code := sender.wait(seconds + WORKERS_UP_S)) != 0:
            raise ClicktideError(f"the generator ended with {code}; see {log}")

    try:
        _wait_for(lambda: truth.exists() and truth.stat().st_size > 0, "the first record")
        yield wait
    finally:
        if sender.poll() is None:
            sender.send_signal(signal.SIGINT)
            sender.wait(30)


def judge(root: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    """What `./tide ledger` finds, once everything has been worked on; `balanced` says whether all is right."""
    out_file = root / "ledger.json"
    with out_file.open("wb") as out, (root / "ledger.log").open("wb") as log:
        words = ["ledger", str(root / TRUTH), "--json", "--wait", f"{LEDGER_WAIT_S:g}", "-e", "stack"]
        done = subprocess.run([*_TIDE, *words], env=dict(environ), stdout=out, stderr=log, check=False)
    found: dict[str, Any] = json.loads(out_file.read_bytes() or b"{}")
    return {**found, "balanced": done.returncode == 0}


def run(
    own: StackSettings, root: Path, project: Path, environ: Mapping[str, str], course: Course, say: Say
) -> Result:
    """Sends, rebalances, kills, waits, judges. Raises `ClicktideError` when a step cannot be taken."""
    result = Result()
    with traffic(root, environ, course) as all_sent:
        started = time.monotonic()

        def step(what: str, after: float = 0.0) -> int:
            """Takes its time, and waits until events flow: what is idle proves nothing. Answers how many are done."""
            while time.monotonic() - started < after:
                time.sleep(_LOOK_S)
            _wait_for(lambda: done(own) > progress, "events to flow")
            at = done(own)
            result.steps.append((time.monotonic() - started, f"{what} ({at} done)"))
            say(result.steps[-1][1])
            return at

        progress = 0
        result.workers = len(workers_of(own, "events"))
        progress = step(f"storm rebalance events -e persist={course.persist}", course.rebalance_s)
        _storm(project, environ, "rebalance", "events", "-w", "1", "-e", f"persist={course.persist}")
        progress = step("kill -9 of one worker of events", course.kill_s)
        os.kill(workers_of(own, "events")[0], signal.SIGKILL)
        all_sent()
        step("all is sent")
    result.ledger = judge(root, environ)
    result.seconds = time.monotonic() - started
    return result


def done(own: StackSettings, namespace: str = "main") -> int:
    """Records that the spout of `events` has seen through, as it publishes it."""
    import redis

    with redis.Redis(port=own.redis_port) as client:
        found: dict[bytes, bytes] = client.hgetall(keys.spouts(namespace, f"tide.{EVENTS}"))
    return sum(int(json.loads(said)["done"]) for said in found.values())


def shares(own: StackSettings, namespace: str = "main") -> dict[str, dict[str, int]]:
    """What each task of the bolts has counted since it started, by topology.component:task, as they publish it themselves."""
    import redis

    with redis.Redis(port=own.redis_port) as client:
        found: dict[bytes, bytes] = client.hgetall(keys.workers(namespace))
    return {task.decode(): json.loads(said)["counts"] for task, said in found.items()}


def workers_of(own: StackSettings, topology: str = "") -> list[int]:
    """Pids of the worker JVMs (not of what wraps their logs), of one topology or of all."""
    found = []
    for record in worker_processes(own):
        try:
            words = Path(f"/proc/{record.pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"org.apache.storm.daemon.worker.Worker" in words and b"org.apache.storm.LogWriter" not in words:
            # Its first argument is the topology's id: name, number, time.
            name = words[words.index(b"org.apache.storm.daemon.worker.Worker") + 1].decode()
            if not topology or name.rsplit("-", 2)[0] == topology:
                found.append(record.pid)
    return found


def _wait_for(met: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + WORKERS_UP_S
    while not met():
        if time.monotonic() > until:
            raise ClicktideError(f"{what}: not within {WORKERS_UP_S:.0f} s")
        time.sleep(_LOOK_S)


def _storm(project: Path, environ: Mapping[str, str], *words: str) -> None:
    command = [str(project / "deploy" / "storm" / "bin" / "storm"), *words]
    try:
        done = subprocess.run(
            command, env=dict(environ), capture_output=True, text=True, timeout=REBALANCE_S, check=False
        )
    except subprocess.TimeoutExpired as e:
        raise ClicktideError(f"storm {words[0]}: no answer in {REBALANCE_S:.0f} s") from e
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise ClicktideError(f"storm {words[0]} failed: {' '.join(last)}")
