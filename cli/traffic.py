"""What the commands that send traffic share: where to send, how to speak, how to stop."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from bench.targets import HttpTarget, LogTarget, Target
from cli.context import collector_url
from clicktide.settings import Settings


def open_target(to: str, env: str, data_dir: Path | None, settings: Settings) -> Target:
    """`kafka` (or `log`) is the environment's log, "" its collector, anything else a collector's URL."""
    if to in ("kafka", "log"):
        return LogTarget(settings)
    return HttpTarget(to or collector_url(env, data_dir), os.environ.get("TIDE_WRITE_KEY", ""))


def say(line: str) -> None:
    """One line for a person, on standard error: standard output is for what programs read."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def stop_on_sigterm() -> Iterator[None]:
    """SIGTERM ends the run as Ctrl-C does: what is under way is awaited, the truth is complete."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
