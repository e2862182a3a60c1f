"""Backoff: how long to wait before the next attempt. Full jitter: clients that failed together do not come back together."""

from __future__ import annotations

from collections.abc import Callable

FIRST_S = 0.1
LONGEST_S = 30.0
MOST_SAID_S = 600.0  # a Retry-After beyond this is taken for a mistake


def pause_s(attempt: int, retry_after: float | None, chance: Callable[[], float]) -> float:
    """Seconds after the `attempt`-th failure in a row (from 0); at least `retry_after`. `chance` gives 0..1."""
    jitter = chance() * min(LONGEST_S, FIRST_S * 2.0 ** min(attempt, 20))
    return min(max(retry_after or 0.0, 0.0), MOST_SAID_S) + jitter
