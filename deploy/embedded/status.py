"""The demo's one status line: rewritten on a terminal, else printed every few seconds; other lines keep above it."""

from __future__ import annotations

import shutil
import time
from typing import TextIO

from deploy.embedded.progress import Progress

TERMINAL_EVERY_S = 1.0
PLAIN_EVERY_S = 5.0


class StatusLine:
    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.tty = out.isatty()
        self.started = time.monotonic()
        self.shown_at = self.started
        self.shown = False

    def say(self, text: str) -> None:
        """A line that stays."""
        self.clear()
        print(f"tide demo: {text}", file=self.out, flush=True)

    def show(self, now: float, progress: Progress | None) -> None:
        """The state at `now` (monotonic s), if it is time for it."""
        if now - self.shown_at < (TERMINAL_EVERY_S if self.tty else PLAIN_EVERY_S):
            return
        self.shown_at = now
        line = f"tide demo: {now - self.started:4.0f} s  {describe(progress)}"
        if self.tty:
            width = shutil.get_terminal_size().columns - 1
            self.out.write("\r\x1b[K" + line[:width])
            self.out.flush()
            self.shown = True
        else:
            print(line, file=self.out, flush=True)

    def clear(self) -> None:
        if self.shown:
            self.out.write("\r\x1b[K")
            self.out.flush()
            self.shown = False

    def close(self) -> None:
        self.clear()


def describe(progress: Progress | None) -> str:
    if progress is None:
        return "the log or Redis does not answer"
    parts = [
        f"in {progress.rate:,.0f}/s",
        f"accepted {progress.accepted:,}",
        f"processed {progress.processed:,}",
    ]
    parts.append(f"lag {progress.lag:,}")
    if progress.retrying:
        parts.append(f"in retry {progress.retrying:,}")
    if progress.dead:
        parts.append(f"dead {progress.dead:,}")
    return "  ".join(parts)
