"""The proxy of a run, as the run gives it orders.

Promises: an order is done when the call returns; the proxy ends with this process, however that ends.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from bench.chaos.proxy import OPEN
from clicktide.errors import ClicktideError

ROOT = Path(__file__).resolve().parent.parent.parent
ANSWER_S = 20.0


class Links:
    """`wanted`: name -> (listen, upstream), see `bench.chaos.proxy`. Raises `ClicktideError` when it cannot listen."""

    def __init__(self, wanted: Mapping[str, tuple[str, str]], log: Path) -> None:
        self.names = tuple(wanted)
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "bench.chaos.proxy", json.dumps(wanted)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])},
                start_new_session=True,  # Ctrl-C is this run's to pass on
            )
        self._log = log
        self._answer()

    def turn(self, name: str, mode: str) -> None:
        self._order({"link": name, "mode": mode})

    def point(self, name: str, upstream: str) -> None:
        """Lead it elsewhere; connections to where it led are reset. It is open then."""
        self._order({"link": name, "to": upstream, "mode": OPEN})

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _order(self, order: Mapping[str, str]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as e:
            raise ClicktideError(f"the proxy has ended; see {self._log}") from e
        self._answer()

    def _answer(self) -> None:
        out = self._process.stdout
        assert out is not None
        waiting = select.poll()  # select.select takes no file beyond the 1024th
        waiting.register(out, select.POLLIN)
        ready = waiting.poll(ANSWER_S * 1000)
        line = out.readline().decode().strip() if ready else ""
        if line != "ok":
            raise ClicktideError(f"the proxy says {line or 'nothing'!r}; see {self._log}")
