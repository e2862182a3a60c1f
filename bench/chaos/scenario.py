"""Scenarios: schedules that are written, not drawn, with probes that measure the fresh path in each phase."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.chaos.plan import AWAY, Fault

WARM_S = 20.0
PROBES_A_SECOND = 20.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """`phases`: name -> (from, to) in s after the traffic's begin."""

    env: str
    seconds: float
    faults: tuple[Fault, ...]
    phases: dict[str, tuple[float, float]]


def shard_away(seconds: float) -> Scenario:
    """One of two SQL servers is dead for three times `seconds`, with as long as `seconds` before and after."""
    begin = WARM_S + seconds
    end = begin + 3 * seconds
    over = end + seconds
    fault = Fault(begin, AWAY, "mariadb-2", 3 * seconds)
    phases = {"before": (WARM_S, begin), "away": (begin, end), "after": (end, over)}
    return Scenario("stack", over, (fault,), phases)


SCENARIOS: dict[str, Callable[[float], Scenario]] = {"shard-away": shard_away}
