"""The audit trail: who replayed, removed or allowed what, one JSON line each.

Promises: a line is on the disk before what it tells of happens.
"""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from clicktide.retry.letters import Letter, replays_of


class Audit:
    """Appends to `path`; `now_ms` is the wall clock, `run` names this call of the desk, `by` who acts
    (None: the system's user)."""

    def __init__(self, path: Path, run: str, now_ms: Callable[[], int], by: str | None = None) -> None:
        self.path, self._run, self._now_ms, self._who = path, run, now_ms, by or _who()

    def letters(self, action: str, letters: Sequence[Letter], edited: frozenset[str] = frozenset()) -> None:
        """One line a letter. No values and no user ids: those are what a removal removes."""
        self._write(
            [
                {
                    "action": action,
                    "id": x.id,
                    "stage": x.envelope.stage,
                    "code": x.envelope.code,
                    "died_at": x.record.timestamp,
                    "replays": replays_of(x.envelope.replay_id),
                    "edited": x.id in edited,
                }
                for x in letters
            ]
        )

    def acts(self, action: str, entries: Sequence[dict[str, Any]]) -> None:
        """One line each, with these fields."""
        self._write([{"action": action, **entry} for entry in entries])

    def _write(self, entries: Sequence[dict[str, Any]]) -> None:
        head = {"at": self._now_ms(), "by": self._who, "run": self._run}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({**head, **entry}, ensure_ascii=False) + "\n" for entry in entries)
            file.flush()
            os.fsync(file.fileno())


def history(path: Path, id_: str) -> list[dict[str, Any]]:
    """The trail's lines about one record, oldest first; [] where there is no trail."""
    if not path.is_file():
        return []
    found = []
    with path.open(encoding="utf-8") as file:
        for line in file:
            if id_ not in line:
                continue
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and entry.get("id") == id_:
                found.append(entry)
    return found


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
