"""The schedule: which fault befalls whom, and when. A pure function of the seed.

Promises: the same seed, time and targets give the same schedule, on every machine; no fault begins before
`FIRST_S` or lasts beyond the end of the traffic; nothing that is being held is chosen a second time, but for a kill.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

KILL, STOP, SLOW, LOSE, LOCK = "kill", "stop", "slow", "lose", "lock"
CUT, HOLE, DELAY, TRICKLE = "cut", "hole", "delay", "trickle"
FULL, SKEW, FAILOVER, REBALANCE, AWAY = "full", "skew", "failover", "rebalance", "away"
KINDS = {
    KILL: "kill -9",
    STOP: "SIGSTOP, and SIGCONT after 1 to 8 s",
    SLOW: "bursts of SIGSTOP, half of the time, for 2 to 6 s",
    LOSE: "Redis killed and started without what it wrote in its last second",
    LOCK: "the file's write lock held by another process for 1 to 6 s",
    CUT: "the link's connections reset, new ones too, for 0.2 to 5 s",
    HOLE: "the link accepts connections and moves nothing for 1 to 8 s",
    DELAY: "the link takes 200 ms each way for 2 to 8 s",
    TRICKLE: "the link moves 5 kB/s each way for 2 to 6 s",
    FULL: "not a byte left on the disk for 1 to 6 s",
    SKEW: "the process's clock wrong by 1 to 10 min for 4 to 15 s",
    FAILOVER: "Redis killed, its replica, which lags 0.2 to 2 s, takes over",
    REBALANCE: "storm rebalance, to one executor or to two",
    AWAY: "the server killed, and not started again for 4 to 15 s",
}
_WEIGHTS = {
    KILL: 6,
    STOP: 4,
    SLOW: 1,
    LOSE: 2,
    LOCK: 2,
    CUT: 3,
    HOLE: 3,
    DELAY: 1,
    TRICKLE: 1,
    FULL: 2,
    SKEW: 2,
    FAILOVER: 2,
    REBALANCE: 1,
    AWAY: 1,
}
LINK_KINDS = (CUT, HOLE, DELAY, TRICKLE)
FIRST_S = 2.0
MEAN_GAP_S = 2.5
_LENGTHS_S = {
    STOP: (1.0, 8.0),
    SLOW: (2.0, 6.0),
    LOCK: (1.0, 6.0),
    LOSE: (0.5, 1.0),
    CUT: (0.2, 5.0),
    HOLE: (1.0, 8.0),
    DELAY: (2.0, 8.0),
    TRICKLE: (2.0, 6.0),
    FULL: (1.0, 6.0),
    SKEW: (4.0, 15.0),
    FAILOVER: (0.2, 2.0),
    AWAY: (4.0, 15.0),
}
# How long after a fault that ends at once its target is left alone, s: Redis loads, a topology moves.
_REST_S = {LOSE: 1.0, FAILOVER: 3.0, REBALANCE: 15.0}
_SKEW_S = (60.0, 600.0)
# Further ahead than this the collector would take its clients for liars (events.future_s).
COLLECTOR_SKEW_S = 200.0
_TRIES = 20


class Fault(NamedTuple):
    """`at`: s after the traffic's begin. `seconds`: how long it lasts (of a loss: how much is lost; of a failover: how far
    the replica is behind); 0 for what is done at once. `amount`: of a skew in s, of a rebalance the executors."""

    at: float
    kind: str
    target: str
    seconds: float
    amount: float = 0.0

    def line(self) -> str:
        length = f" {self.seconds:.1f} s" if self.seconds else ""
        by = {SKEW: f" by {self.amount:+.0f} s for", REBALANCE: f" to {self.amount:.0f}"}.get(self.kind, "")
        return f"{self.at:6.1f} s  {self.kind} {self.target}{by}{length}"


def schedule(
    seed: int, seconds: float, targets: Mapping[str, Sequence[str]], kinds: Iterable[str] = tuple(KINDS)
) -> tuple[Fault, ...]:
    """The faults of `seconds` of traffic in the order of their time; `targets` says for each kind whom it can befall.

    A kind without targets is left out. Raises ValueError for a kind that does not exist.
    """
    chosen = sorted(set(kinds))
    if unknown := [kind for kind in chosen if kind not in KINDS]:
        raise ValueError(f"unknown fault {unknown[0]!r}; expected some of {', '.join(KINDS)}")
    possible = [kind for kind in chosen if targets.get(kind)]
    source = random.Random(f"clicktide chaos {seed}")
    out: list[Fault] = []
    at = FIRST_S
    while possible:
        at += min(source.expovariate(1 / MEAN_GAP_S), 3 * MEAN_GAP_S)
        if at >= seconds:
            break
        for _ in range(_TRIES):
            kind = source.choices(possible, [_WEIGHTS[k] for k in possible])[0]
            target = source.choice(sorted(targets[kind]))
            fault = Fault(round(at, 2), kind, target, _length(source, kind), _amount(source, kind, target))
            if fault.at + _held(fault) < seconds and not any(_clash(fault, before) for before in out):
                out.append(fault)
                break
    return tuple(out)


def _length(source: random.Random, kind: str) -> float:
    return round(source.uniform(*_LENGTHS_S[kind]), 2) if kind in _LENGTHS_S else 0.0


def _amount(source: random.Random, kind: str, target: str) -> float:
    if kind == REBALANCE:
        return float(source.choice((1, 2)))
    if kind != SKEW:
        return 0.0
    most = COLLECTOR_SKEW_S if target == "services" else _SKEW_S[1]
    return round(source.uniform(_SKEW_S[0], most)) * source.choice((-1.0, 1.0))


def _held(fault: Fault) -> float:
    return fault.seconds + _REST_S.get(fault.kind, 0.0)


def _clash(fault: Fault, before: Fault) -> bool:
    """Whether it meets one that is not over: of the same target, or a topology moved twice at a time."""
    same = fault.target == before.target or fault.kind == before.kind == REBALANCE
    return fault.kind != KILL and same and fault.at <= before.at + _held(before) + 0.5
