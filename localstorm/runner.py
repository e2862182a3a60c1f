"""Runs a topology: in the calling thread (`run`), or beside a program's own work (`Runner`)."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from localstorm.errors import LocalStormError
from localstorm.hub import Hub
from localstorm.logs import LogFiles
from localstorm.reporting import Console, PlainConsole, Reporter
from localstorm.settings import Settings
from localstorm.stats import Sampler, Snapshot


def make_hub(settings: Settings, console: Console | None = None) -> Hub:
    """A hub that has not started anything. Raises LocalStormError if it could not write its logs."""
    logs = LogFiles(settings.log_dir, settings.plan.name)
    stats_file = check_stats_file(settings.stats_file)
    sampler = Sampler(settings.plan.name, time.monotonic())
    return Hub(settings, Reporter(console or PlainConsole(), logs, sampler, stats_file))


def check_stats_file(path: Path | None) -> Path | None:
    """The path, if it can be written. Raises LocalStormError."""
    if path is not None:
        beside = path.with_name(path.name + ".new")
        try:
            beside.touch()
            beside.unlink()
        except OSError as error:
            raise LocalStormError(f"stats file {path} cannot be written: {error.strerror}") from None
    return path


def run(settings: Settings, console: Console | None = None) -> Snapshot | None:
    """Runs a topology to its end in the main thread: the given duration, Ctrl-C or SIGTERM.

    The first signal drains, the second ends at once. Returns the last snapshot; raises LocalStormError.
    """
    hub = make_hub(settings, console)

    def stop(_number: int, _frame: FrameType | None) -> None:
        hub.course.stop()

    before = {
        number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        hub.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return hub.reporter.latest


class Runner:
    """A topology that runs in a thread of this process. Usable as a context manager."""

    def __init__(self, settings: Settings, console: Console | None = None) -> None:
        self._hub = make_hub(settings, console)
        self._thread = threading.Thread(target=self._run, name="localstorm", daemon=True)
        self._error: BaseException | None = None

    def start(self) -> None:
        """Starts the processes; returns at once."""
        self._thread.start()

    def stop(self, timeout: float | None = None) -> Snapshot | None:
        """Drains, ends all processes, returns the last snapshot. Raises what ended the run early, and
        TimeoutError after `timeout` seconds."""
        if self._thread.is_alive():
            self._hub.course.stop()
        return self.join(timeout)

    def join(self, timeout: float | None = None) -> Snapshot | None:
        """Waits for the run to end by itself; as `stop`."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError(f"the topology has not ended within {timeout} s")
        if self._error:
            raise self._error
        return self.stats()

    def stats(self) -> Snapshot | None:
        """The newest snapshot, at most a second old; None before the first."""
        return self._hub.reporter.latest

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._hub.run()
        except BaseException as error:
            self._error = error

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.stop()
        elif self._thread.is_alive():
            self._hub.course.stop()
            self._hub.course.stop()
            self._thread.join()
