"""A demo as a user runs it, for tests: started, watched through what it prints, and searched for what it leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent.parent.parent
PATIENCE_S = 100.0
COMMAND = (sys.executable, "-P", "-m", "cli.main")


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TIDE_")}
    return {**kept, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", **more}


def tide(*words: str, timeout_s: float = PATIENCE_S, **more: str) -> subprocess.CompletedProcess[str]:
    """One command line, to its end."""
    return subprocess.run(
        [*COMMAND, *words],
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def wait_for(look: Callable[[], Any], what: str) -> Any:
    """The first answer of `look` that is true."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited in vain for {what}")


def views(url: str) -> int:
    """Views that the query service at `url` has counted; -1 while nobody says so."""
    try:
        answer = httpx.get(url + "/v1/metrics/events", timeout=30)
    except httpx.HTTPError:
        return -1
    return answer.json()["totals"]["view"] if answer.status_code == 200 else -1


def processes_of(data_dir: Path) -> dict[int, str]:
    """The processes that run on a data directory, by pid: their environment or command names it."""
    wanted = os.fsencode(data_dir)
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            if wanted in command or wanted in (entry / "environ").read_bytes():
                found[int(entry.name)] = command.replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
    return found


class DemoProcess:
    """One running demo."""

    def __init__(self, data_dir: Path, *words: str, output: Path) -> None:
        self.data_dir, self.output = data_dir, output
        with output.open("wb") as out:
            self.process = subprocess.Popen(
                [*COMMAND, "demo", "--port", "0", "--data-dir", str(data_dir), *words],
                env=environment(),
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def said(self) -> str:
        return self.output.read_text("utf-8")

    def wait_up(self) -> None:
        wait_for(lambda: "Ctrl-C ends it" in self.said() or self.process.poll() is not None, "the demo")
        assert "Ctrl-C ends it" in self.said(), self.said()

    def record(self) -> dict[str, Any]:
        return json.loads((self.data_dir / "run.json").read_text("utf-8"))

    def child(self, name: str) -> int | None:
        """The pid of one of its processes; None while there is none."""
        return self.record()["children"].get(name, {}).get("pid")

    def kill(self, name: str) -> None:
        """kill -9 of one of its processes, and wait until another has taken its place."""
        pid = wait_for(lambda: self.child(name), name)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: self.child(name) not in (None, pid), f"a new {name}")

    def end(self, sign: int = signal.SIGINT) -> int:
        if self.process.poll() is None:
            self.process.send_signal(sign)
        return self.process.wait(PATIENCE_S)

    def nothing_left(self) -> None:
        wait_for(lambda: not processes_of(self.data_dir), f"the end of {processes_of(self.data_dir)}")


@contextmanager
def demo(folder: Path, *words: str) -> Iterator[DemoProcess]:
    """A demo on `folder`/data that is up; whatever happens, nothing of it is left."""
    made = DemoProcess(folder / "data", *words, output=folder / "output.txt")
    try:
        made.wait_up()
        yield made
    finally:
        made.end()
        made.nothing_left()
