"""Shows how far a long run is: a live line on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

_PLAIN_EVERY_S = 5.0
_RATE_OVER_S = 3.0


class Meter:
    """A context: `show` as often as you like, it draws only when there is something to see."""

    def __init__(self, what: str, total: float | None, *, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._what, self._total = what, total
        self._live: Progress | None = None
        self._task = TaskID(0)
        self._next_plain = time.monotonic() + _PLAIN_EVERY_S
        self._seen: list[tuple[float, float]] = [(time.monotonic(), 0.0)]

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"))
            self._live = Progress(
                *columns, TimeElapsedColumn(), console=self._console, transient=True, refresh_per_second=4
            )
            self._live.start()
            self._task = self._live.add_task(self._what, total=self._total, note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, done: float, note: str) -> None:
        if self._live is not None:
            self._live.update(self._task, completed=done, note=note)
            return
        if time.monotonic() >= self._next_plain:
            self._next_plain = time.monotonic() + _PLAIN_EVERY_S
            share = f" {done / self._total:.0%}" if self._total else ""
            self._console.print(f"{self._what}{share}: {note}", highlight=False, soft_wrap=True)

    def rate(self, done: float) -> float:
        """`done` a second over the last seconds."""
        now = time.monotonic()
        self._seen.append((now, done))
        while len(self._seen) > 2 and self._seen[0][0] < now - _RATE_OVER_S:
            self._seen.pop(0)
        then, before = self._seen[0]
        return (done - before) / (now - then) if now > then else 0.0
