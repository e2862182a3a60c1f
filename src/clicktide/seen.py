"""What a source is told of the stores, and by whom (`watch` in production). Nothing here asks a store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Seen:
    """What the watch knows of the stores. `run_id` is Redis's at `checked_at` (s of the source's clock), None while it does
    not answer; `all_away`: no store answers, so there is nothing to do but to wait; `stopped`: a stage sends no dead letters
    just now, so that slices fail that are not to blame; `away`: see `holds.Away`."""

    run_id: str | None
    checked_at: float
    all_away: bool = False
    stopped: bool = False
    away: Mapping[str, str] = field(default_factory=dict)


class Watch(Protocol):
    def seen(self) -> Seen: ...
