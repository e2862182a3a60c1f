"""The schedule: which fault befalls whom, and when. A pure function of the seed.

Promises: the same seed, time and targets give the same schedule, on every machine; no fault begins before
`FIRST_S` or lasts beyond the end of the traffic; nothing that is being held is chosen a second time, but for a kill.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

KILL, STOP, SLOW, LOSE, LOCK = "kill", "stop", "slow", "lose", "lock"
KINDS = {
    KILL: "kill -9",
    STOP: "SIGSTOP, and SIGCONT after 1 to 8 s",
    SLOW: "bursts of SIGSTOP, half of the time, for 2 to 6 s",
    LOSE: "Redis killed and started without what it wrote in its last second",
    LOCK: "the file's write lock held by another process for 1 to 6 s",
}
_WEIGHTS = {KILL: 6, STOP: 4, SLOW: 1, LOSE: 2, LOCK: 2}
FIRST_S = 2.0
MEAN_GAP_S = 2.5
_LENGTHS_S = {STOP: (1.0, 8.0), SLOW: (2.0, 6.0), LOCK: (1.0, 6.0), LOSE: (0.5, 1.0)}
_TRIES = 20


class Fault(NamedTuple):
    """`at`: s after the traffic's begin. `seconds`: how long it lasts (of a loss: how much is lost); 0 for a kill."""

    at: float
    kind: str
    target: str
    seconds: float

    def line(self) -> str:
        length = f" {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.at:6.1f} s  {self.kind} {self.target}{length}"


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
            fault = Fault(round(at, 2), kind, source.choice(sorted(targets[kind])), _length(source, kind))
            if fault.at + _held(fault) < seconds and not any(_clash(fault, before) for before in out):
                out.append(fault)
                break
    return tuple(out)


def _length(source: random.Random, kind: str) -> float:
    return round(source.uniform(*_LENGTHS_S[kind]), 2) if kind in _LENGTHS_S else 0.0


def _held(fault: Fault) -> float:
    return fault.seconds + 1.0 if fault.kind == LOSE else fault.seconds


def _clash(fault: Fault, before: Fault) -> bool:
    return (
        fault.kind != KILL and fault.target == before.target and fault.at <= before.at + _held(before) + 0.5
    )
