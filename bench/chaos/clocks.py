"""Clocks that go wrong: the offset of each component's wall clock, in a file that its processes look at.

Promises: a change is seen at the very next look at the clock; only processes with this run's environment are concerned.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from bench.chaos.clock.sitecustomize import SECONDS

_SHIM = Path(__file__).with_name("clock") / "sitecustomize.py"
VARIABLE = "CLICKTIDE_CLOCKS"


class Clocks:
    """`words`: target -> a word that its processes' command lines have and no others' (a class, a module).

    `folder` is made; not below the checkout, whose folders workers do not get on their path.
    """

    def __init__(self, folder: Path, words: Mapping[str, str]) -> None:
        self.folder, self._words = folder, dict(words)
        folder.mkdir()
        shutil.copy(_SHIM, folder)
        for word in self._words.values():
            (self.folder / word).write_bytes(SECONDS.pack(0.0))

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The environment of processes whose clocks can be set."""
        path = [str(self.folder), *environ.get("PYTHONPATH", "").split(os.pathsep)]
        return {
            **environ,
            "PYTHONPATH": os.pathsep.join(p for p in path if p),
            VARIABLE: str(self.folder),
        }

    def set(self, target: str, seconds: float) -> None:
        with (self.folder / self._words[target]).open("r+b", buffering=0) as file:
            file.write(SECONDS.pack(seconds))
