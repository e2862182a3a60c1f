"""Limits: a token bucket (so many events a second on average, with a burst), and a room (so many bytes at a time)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from services.problems import ProblemError


class TokenBucket:
    """`rate` events a second; 0 or less never refuses. Times are monotonic seconds, passed in."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst, self._level, self._at = rate, burst, burst, -math.inf

    def take(self, events: int, now: float) -> float:
        """0 when they may pass; else the seconds until they may, and nothing is taken.

        A request of more than the burst passes once the bucket is full, and leaves a debt: it would never pass else.
        """
        if self._rate <= 0:
            return 0.0
        self._level = min(self._burst, self._level + max(0.0, now - self._at) * self._rate)
        self._at = max(self._at, now)
        needed = min(float(events), self._burst)
        if self._level >= needed:
            self._level -= events
            return 0.0
        return (needed - self._level) / self._rate


class Room:
    """Bytes that uploads may hold at the same time."""

    def __init__(self, limit: int) -> None:
        self._limit, self.used = limit, 0

    @contextmanager
    def held(self) -> Iterator[Callable[[int], None]]:
        """Gives a function that takes bytes until the block ends. Past the limit it raises an `overloaded` problem; a
        single upload always fits."""
        mine = 0

        def take(size: int) -> None:
            nonlocal mine
            if self.used > mine and self.used + size > self._limit:
                raise ProblemError("overloaded", "too many uploads at the same time", retry_after=1)
            mine += size
            self.used += size

        try:
            yield take
        finally:
            self.used -= mine
