"""What a chaos run found: a value a run, its line in the table, its JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.chaos.plan import KINDS


@dataclass(slots=True)
class Outcome:
    """One run. Records are counted on the log; `recovery_s` is from the end of faults and traffic until nothing waits."""

    env: str
    seed: int
    seconds: float
    faults: dict[str, int] = field(default_factory=dict)
    missed: int = 0
    events: int = 0
    duplicates: int = 0
    malformed: int = 0
    retried: int = 0
    dead: int = 0
    replays: int = 0
    restarts: int = 0
    recovery_s: float | None = None
    ledgers: dict[str, bool] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    phases: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """All ledgers balanced, nothing dead but the malformed, all drained, and no problem beside."""
        balanced = bool(self.ledgers) and all(self.ledgers.values())
        return balanced and self.recovery_s is not None and not self.problems

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}


_HEAD = (
    "where",
    "seed",
    "faults",
    "events",
    "duplicates dropped",
    "malformed",
    "slices replayed",
    "tasks restarted",
    "retried",
    "dead",
    "recovery",
    "ledger",
)


def table(outcomes: Sequence[Outcome]) -> str:
    """A Markdown table, one row a run."""
    rows = [_HEAD, tuple("---" for _ in _HEAD), *(_row(o) for o in outcomes)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def phase_lines(outcome: Outcome) -> list[str]:
    """What the probes of a scenario found, a line a phase."""
    return [
        f"{name}: p50 {of['p50_ms']:,.0f} ms, p99 {of['p99_ms']:,.0f} ms of {of['probes']:.0f} probes,"
        f" {of['never']:.0f} never seen"
        + (f", {of['retried']:,.0f} records written to retry topics" if "retried" in of else "")
        for name, of in outcome.phases.items()
    ]


def _row(o: Outcome) -> tuple[str, ...]:
    faults = ", ".join(f"{kind} {o.faults[kind]}" for kind in KINDS if o.faults.get(kind))
    return (
        f"{o.env}, {o.seconds:g} s",
        str(o.seed),
        faults or "none",
        f"{o.events:,}",
        f"{o.duplicates:,}",
        f"{o.malformed:,}",
        f"{o.replays:,}",
        f"{o.restarts:,}",
        f"{o.retried:,}",
        f"{o.dead:,}",
        "never" if o.recovery_s is None else f"{o.recovery_s:.0f} s",
        "balanced" if o.passed else "FAILED",
    )
