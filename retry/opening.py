"""Opening the desk from the command line: an environment's settings, and progress on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.progress import Meter
from cli.context import data_dir, settings_for
from clicktide.errors import SettingError
from clicktide.log import open_log
from clicktide.retry.letters import Progress
from retry.desk import Desk


@contextmanager
def desk_of(env: str, data_dir_given: Path | None, audit: Path | None = None) -> Iterator[Desk]:
    """The desk of an environment. Raises `SettingError` when there is no log."""
    settings = settings_for(env, data_dir_given)
    if settings.text("log.adapter") == "embedded" and not Path(settings.text("log.path")).exists():
        raise SettingError(f"there is no log at {settings.text('log.path')}; ./tide demo makes one")
    desk = Desk(
        settings, open_log(settings), audit or data_dir(data_dir_given) / "dead-audit.jsonl", show=progress
    )
    try:
        yield desk
    finally:
        desk.close()


@contextmanager
def progress(what: str, alive: Callable[[], None] = lambda: None) -> Iterator[Progress]:
    """Shows how far a scan is, on standard error."""
    with Meter(what, 1.0) as meter:

        def show(done: int, total: int) -> None:
            alive()
            meter.show(done / total if total else 1.0, f"{done:,} of {total:,} records")

        yield show
