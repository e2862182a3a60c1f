"""Shows a topology's warnings and errors where the demo's user looks, a few at a time.

Promises: never more than `BURST` lines in `EVERY_S` of one file, and what was held back is counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

BURST = 3
EVERY_S = 10.0
READ_BYTES = 65536
LEVELS = ("error:", "warning:", "critical:")


@dataclass
class Relay:
    """The new lines of one file of localstorm's messages, from where it ends now."""

    file: Path
    offset: int = field(init=False)
    shown: int = 0
    held: int = 0
    window_at: float = float("-inf")

    def __post_init__(self) -> None:
        self.offset = self._size()

    def new_lines(self, now: float) -> list[str]:
        """What to show at `now` (monotonic s)."""
        out = []
        if now - self.window_at >= EVERY_S:
            if self.held:
                out.append(f"{self.held} more like these in {self.file}")
            self.window_at, self.shown, self.held = now, 0, 0
        for line in self._read():
            if not line.startswith(LEVELS):
                continue  # the lines of a traceback: its last line comes with the component's own message
            if self.shown < BURST:
                self.shown += 1
                out.append(line)
            else:
                self.held += 1
        return out

    def _read(self) -> list[str]:
        size = self._size()
        if size <= self.offset:
            self.offset = size  # it was cut, or nothing is new
            return []
        try:
            with self.file.open("rb") as file:
                file.seek(self.offset)
                raw = file.read(READ_BYTES)
        except OSError:
            return []
        whole = raw[: raw.rfind(b"\n") + 1] if len(raw) < READ_BYTES else raw
        self.offset += len(whole)
        return whole.decode("utf-8", "replace").splitlines()

    def _size(self) -> int:
        try:
            return self.file.stat().st_size
        except OSError:
            return 0
