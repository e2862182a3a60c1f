"""Scenarios: schedules that are written, not drawn, with probes that measure the fresh path in each phase."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bench.chaos.plan import AWAY, LOCK, Fault
from clicktide.settings import Value

WARM_S = 20.0
PROBES_A_SECOND = 20.0


# Whom it befalls, and how: the demo's shards are files, and one that another process holds is as good as away.
_SHARD = {"embedded": (LOCK, "shard-1"), "stack": (AWAY, "mariadb-2")}
# A server that is dead refuses at once, a file that is held is waited for: with the default of 5 s the bolts would do nothing else.
_QUICKLY: dict[str, Mapping[str, Value]] = {"embedded": {"tide.sql.timeout_s": 0.25}, "stack": {}}


@dataclass(frozen=True, slots=True)
class Scenario:
    """`phases`: name -> (from, to) in s after the traffic's begin; `options` are over the settings of an embedded Clicktide."""

    seconds: float
    faults: tuple[Fault, ...]
    phases: dict[str, tuple[float, float]]
    options: Mapping[str, Value] = field(default_factory=dict)


def shard_away(env: str, seconds: float) -> Scenario:
    """One of two SQL servers is dead for three times `seconds`, with as long as `seconds` before and after."""
    begin = WARM_S + seconds
    end = begin + 3 * seconds
    over = end + seconds
    kind, target = _SHARD[env]
    phases = {"before": (WARM_S, begin), "away": (begin, end), "after": (end, over)}
    return Scenario(over, (Fault(begin, kind, target, 3 * seconds),), phases, _QUICKLY[env])


SCENARIOS: dict[str, Callable[[str, float], Scenario]] = {"shard-away": shard_away}
