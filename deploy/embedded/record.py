"""The record of a run, `run.json`: which processes the demo started, where they answer, what they were told.

Promises that a process is known by its pid *and* its start time, so that a pid which the system has given to another
program is never taken for ours.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any


def start_time(pid: int) -> str:
    """When a process started, as the system words it; "" when there is none (or only its corpse)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return "" if Path("/proc/self/stat").exists() else _start_time_by_ps(pid)
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


def _start_time_by_ps(pid: int) -> str:
    asked = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip()


def identity(pid: int) -> dict[str, Any]:
    return {"pid": pid, "started": start_time(pid)}


def alive(known: Mapping[str, Any]) -> bool:
    """Whether the very process that was recorded still runs."""
    started = known.get("started")
    return bool(started) and start_time(int(known["pid"])) == started


def write(path: Path, value: Mapping[str, Any]) -> None:
    """Replaces the record in one step."""
    draft = path.with_name(f"{path.name}.draft")
    draft.write_text(json.dumps(value, indent=1), "utf-8")
    draft.replace(path)


def read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def read_live(path: Path) -> dict[str, Any] | None:
    """The record, if the demo that wrote it still runs."""
    found = read(path)
    return found if found and "pid" in found and alive(found) else None


def end_orphans(path: Path, patience_s: float = 5.0) -> list[str]:
    """Ends what a killed demo left behind; answers with the names of what was still running."""
    children = (read(path) or {}).get("children") or {}
    left = {name: known for name, known in children.items() if alive(known)}
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for known in left.values():
            if alive(known):
                with suppress(ProcessLookupError):  # it ended just now
                    os.kill(int(known["pid"]), sign)
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline and any(alive(known) for known in left.values()):
            time.sleep(0.05)
    return sorted(left)
