"""The traffic of a chaos run: processes of `./tide generate` and `./tide replay`, each with its truth.

Two generators: one writes the log itself, malformed records and all, the other goes through the collector; each has
half of the rate and sends some events twice. A file, if one is given, is replayed through the collector besides.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TIDE = (sys.executable, "-P", "-m", "cli.main")


@dataclass(frozen=True, slots=True)
class Load:
    """`rate`: records a second of both generators together; `file` is replayed in `seconds`, too."""

    rate: float
    seconds: float
    seed: int
    file: Path | None = None
    duplicates: float = 0.01
    malformed: float = 0.001
    orders: float = 0.08

    def records(self) -> float:
        """About how many will be sent."""
        rows = sum(1 for _ in self.file.open("rb")) if self.file else 0
        return self.rate * self.seconds + rows


class Sending:
    """One sender."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, environ: Mapping[str, str]) -> None:
        self.name, self.truth, self.log = name, folder / f"{name}.jsonl", folder / f"{name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*TIDE, *command, "--truth", str(self.truth)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(environ),
                start_new_session=True,  # Ctrl-C is this run's to pass on
            )

    def begun(self) -> bool:
        """Whether something has been accepted."""
        return self.truth.exists() and self.truth.stat().st_size > 0

    def code(self) -> int | None:
        return self.process.poll()

    def said(self) -> str:
        """The last line that it printed."""
        lines = self.log.read_text("utf-8", "replace").replace("\r", "\n").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "")

    def end(self) -> None:
        """Ends it in order, or not."""
        if self.code() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(25)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def start(
    load: Load, where: Sequence[str], url: str, folder: Path, environ: Mapping[str, str]
) -> list[Sending]:
    """Starts the senders; `where` names the environment on their command lines."""

    def generate(seed: int, *more: str) -> list[str]:
        half = ["--rate", f"{load.rate / 2:g}", "--seconds", f"{load.seconds:g}", "--seed", str(seed)]
        mix = ["--duplicates", f"{load.duplicates:g}", "--orders", f"{load.orders:g}"]
        return ["generate", *half, *mix, *where, *more]

    commands = {
        "log": generate(load.seed, "--to", "kafka", "--malformed", f"{load.malformed:g}"),
        "collector": generate(load.seed + 1_000_000, "--to", url),
    }
    if load.file is not None:
        rows = max(1, sum(1 for _ in load.file.open("rb")))
        rate = f"{max(1.0, rows / load.seconds):g}"
        label = f"chaos-{load.seed}"  # the same rows anew, where a run before had them
        commands["file"] = ["replay", str(load.file), "--run", label, "--rate", rate, "--to", url, *where]
    return [Sending(name, command, folder, environ) for name, command in commands.items()]
