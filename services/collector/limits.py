"""Limits: a token bucket, so many events a second on average with a burst of one second's worth."""

from __future__ import annotations

import math


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
