"""What a hub is told: the topology, the folders, and how patient it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from localstorm.plan import Plan
from localstorm.wire import Values

if TYPE_CHECKING:
    from localstorm.task import Faults, Task


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of one run. Times are in seconds.

    `duration` 0 is until stopped; `max_restarts` None is without limit; `faults`, `observe` (each emit) and
    `observe_outcome` (the end of each tree) are for tests.
    """

    plan: Plan
    project: Path
    log_dir: Path
    duration: float = 0.0
    drain: float = 10.0
    max_restarts: int | None = None
    stats_file: Path | None = None
    backoff_first: float = 0.1
    backoff_most: float = 30.0
    faults: Mapping[str, Faults] = field(default_factory=dict)
    observe: Callable[[Task, str, bytes, Values], None] | None = None
    observe_outcome: Callable[[Task, bytes, str], None] | None = None
