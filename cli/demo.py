"""`./tide demo`: everything embedded in one data directory, with sample traffic and a live page.

Promises: nothing is left running however it ends; with `--seconds` the exit code is 0 only if the ledger of that run's
traffic balances. What runs, and how it is watched, is deploy.embedded's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from cli.context import DataDirOption, data_dir, settings_for
from clicktide.errors import SettingError
from deploy.embedded import record
from deploy.embedded.child import Child
from deploy.embedded.hold import free_mb
from deploy.embedded.places import Places
from deploy.embedded.progress import Progress, Watch
from deploy.embedded.status import StatusLine
from deploy.embedded.supervisor import Supervisor, running_services

TICK_S = 0.2
STUCK_S = 120.0  # a drain that moves nothing for so long is given up; the 1m tier may wait for 60
LOW_DISK_MB = 100
KEPT_TRUTHS = 5
FOREVER_S = 90 * 86400


@dataclass(frozen=True)
class Traffic:
    """What the demo sends: `seconds` None for as long as it runs."""

    rate: float
    seconds: int | None
    file: Path | None

    def command(self, url: str, truth: Path) -> list[str]:
        tide = [sys.executable, "-P", "-m", "cli.main"]
        target = ["--to", url, "--truth", str(truth)]
        if self.file is not None:
            return [*tide, "replay", str(self.file), "--rate", f"{self.rate:g}", *target]
        seconds, seed = self.seconds or FOREVER_S, time.time_ns() % 2**31
        return [
            *tide,
            "generate",
            "--rate",
            f"{self.rate:g}",
            "--seconds",
            str(seconds),
            "--seed",
            str(seed),
            *target,
        ]


def main(
    port: Annotated[
        int, typer.Option(help="Port of the page and the API on 127.0.0.1; 0 for a free one.")
    ] = 8080,
    rate: Annotated[float, typer.Option(help="Events a second.", min=0.1, max=50_000)] = 200,
    seconds: Annotated[
        int | None,
        typer.Option(help="Stop the traffic after so long, drain, print the ledger and end.", min=1),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="Replay this user_log.csv instead of made-up traffic.")
    ] = None,
    data_dir_given: DataDirOption = None,
    no_traffic: Annotated[
        bool, typer.Option("--no-traffic", help="Only the services, no sample traffic.")
    ] = False,
) -> int:
    """Everything embedded: log, Redis, SQL shards, topologies, services, and sample traffic. Ctrl-C ends it."""
    if no_traffic and (seconds is not None or file is not None):
        raise SettingError("--no-traffic goes with neither --seconds nor --file")
    if file is not None and not (file.is_file() and os.access(file, os.R_OK)):
        raise SettingError(f"--file {file}: expected a file that can be read")
    traffic = None if no_traffic else Traffic(rate, seconds, file.absolute() if file else None)
    places = Places(data_dir(data_dir_given))
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, _interrupt)
    status = StatusLine(sys.stdout)
    started = time.monotonic()
    status.say("starting the log, Redis, the shards, two topologies and the services")
    try:
        with running_services(
            places, lambda: settings_for("embedded", places.root), port, status.say
        ) as services:
            _say_where(services, status, time.monotonic() - started)
            return Demo(services, status, traffic).run()
    except KeyboardInterrupt:
        status.say("ended")
        return 0 if seconds is None else 130
    finally:
        status.close()


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _say_where(services: Supervisor, status: StatusLine, took_s: float) -> None:
    from deploy.embedded import plan

    urls = plan.urls(services.port)
    status.say(f"up after {took_s:.1f} s; Ctrl-C ends it")
    for name, text in (
        ("live page", urls["page"]),
        ("API", f"{urls['docs']}  (metrics: {urls['query']}/v1/metrics/events)"),
        ("collector", f"POST {urls['collector']}/v1/events"),
        ("data, logs", f"{services.places.root}"),
    ):
        status.say(f"  {name:<10}  {text}")


class Demo:
    """One run: traffic if any, the status line, and with a time limit the drain and the ledger."""

    def __init__(self, services: Supervisor, status: StatusLine, traffic: Traffic | None) -> None:
        self.services, self.status, self.traffic = services, status, traffic
        self.watch = Watch(services.settings, services.places.socket)
        self.truth = services.places.truths / time.strftime("%Y%m%dT%H%M%S.jsonl")
        self.sender: Child | None = None
        self.stop_at: float | None = None
        self.free_checked = 0.0

    def run(self) -> int:
        try:
            return self._run()
        finally:
            self._stop_sender()
            self.watch.close()

    def _run(self) -> int:
        if self.traffic is not None:
            self._start_sender(self.traffic)
        while self.traffic is None or self.traffic.seconds is None or self._sending():
            self._tick(time.monotonic())
        failed = self.sender is not None and self.sender.exit_code() not in (0, None) and self.stop_at is None
        self._stop_sender()
        drained = self._drain()
        balanced = self._ledger()
        return 0 if balanced and drained and not failed else 1

    def _sending(self) -> bool:
        return self.sender is not None and self.sender.exit_code() is None

    def _start_sender(self, traffic: Traffic) -> None:
        # Endless traffic keeps no truth: it would grow without a limit.
        truth = self.truth if traffic.seconds is not None or traffic.file is not None else Path(os.devnull)
        forget_old_truths(self.services.places.truths)
        self.sender = Child(
            name="traffic",
            command=traffic.command(f"http://127.0.0.1:{self.services.port}", truth),
            log=self.services.places.logs / "traffic.log",
            environ=self.services.environ,
            ready=lambda: True,
        )
        self.sender.start(time.monotonic())
        pid = self.sender.pid or 0
        self.services.facts = {"truth": str(truth), "children": {"traffic": record.identity(pid)}}
        self.services.write_record()
        if traffic.seconds is not None and traffic.file is not None:
            self.stop_at = time.monotonic() + traffic.seconds
        what = f"replaying {traffic.file.name}" if traffic.file else "sample traffic"
        self.status.say(
            f"{what}: {traffic.rate:g} events/s" + (f", {traffic.seconds} s" if traffic.seconds else "")
        )

    def _tick(self, now: float) -> Progress | None:
        self.services.watch()
        self._watch_sender(now)
        if now - self.free_checked > 5:
            self.free_checked = now
            self._watch_disk()
        progress = self.watch.look(now)
        self.status.show(now, progress)
        time.sleep(TICK_S)
        return progress

    def _watch_sender(self, now: float) -> None:
        if self.sender is None or self.traffic is None:
            return
        code = self.sender.exit_code()
        if code is None:
            if self.stop_at is not None and now >= self.stop_at:
                self._stop_sender()
        elif self.sender.restart_at is None:
            self.sender.restart_at = now  # said once; it is not started again
            if code == 0:
                self.status.say("all of the traffic is sent")
            else:
                self.status.say(f"the traffic ended with exit code {code}")
                for line in self.sender.last_lines(3):
                    self.status.say(f"  traffic: {line}")

    def _watch_disk(self) -> None:
        free = free_mb(self.services.places.root)
        if free < LOW_DISK_MB and self._sending():
            self.status.say(
                f"the disk of {self.services.places.root} has {free} MB left: the traffic is stopped"
            )
            self._stop_sender()

    def _stop_sender(self) -> None:
        if self.sender is not None and self.sender.process is not None and self._sending():
            self.sender.process.send_signal(signal.SIGINT)
            self.sender.end(10.0)
            self.sender.restart_at = time.monotonic()

    def _drain(self) -> bool:
        """Waits until the topologies have done all there is; gives up when nothing moves any more."""
        self.status.say("draining")
        best, since = None, time.monotonic()
        while True:
            now = time.monotonic()
            progress = self._tick(now)
            left = None if progress is None else progress.lag + progress.retrying
            if left == 0:
                return True
            if left is not None and (best is None or left < best):
                best, since = left, now
            if now - since > STUCK_S:
                waiting = (
                    "the log or Redis does not answer" if best is None else f"{best:,} events still wait"
                )
                self.status.say(f"gave up draining, nothing moved for {STUCK_S:.0f} s: {waiting}")
                return False

    def _ledger(self) -> bool:
        self.status.say("the ledger of this run:")
        self.status.clear()
        command = [sys.executable, "-P", "-m", "cli.main", "ledger", str(self.truth), "-e", "embedded"]
        command += ["--data-dir", str(self.services.places.root), "--wait", "20"]
        ledger = subprocess.Popen(command, env=self.services.environ)
        try:
            while ledger.poll() is None:
                self.services.watch()
                time.sleep(TICK_S)
        finally:
            if ledger.poll() is None:
                ledger.terminate()
                ledger.wait()
        return ledger.returncode == 0


def forget_old_truths(folder: Path) -> None:
    """Keeps the newest truth files, so that repeated demos do not fill the disk."""
    for old in sorted(folder.glob("*.jsonl"))[: -(KEPT_TRUTHS - 1)]:
        old.unlink(missing_ok=True)
