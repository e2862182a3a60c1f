"""Limits: token buckets, one for all callers and one for each key, and what callers are told of them.

Promises: a request that one bucket refuses takes nothing from the others, so a key past its own limit costs no other key;
as many buckets as there are keys, and a bounded number for users.

Headers are those of the IETF draft `draft-ietf-httpapi-ratelimit-headers-10`: `RateLimit-Policy` names each bucket with its
size (`q`), the seconds in which it fills (`w`) and what it counts (`qu`); `RateLimit` says what is left (`r`) and the seconds
until it is full again (`t`).
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from services.access.keyfile import Key
from services.problems import ProblemError


class TokenBucket:
    """`rate` a second on average; 0 or less never refuses. Times are monotonic seconds, passed in."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate, self.burst = rate, burst
        self._level, self._at = burst, -math.inf

    def wait(self, count: int, now: float) -> float:
        """0 when so many may pass, else the seconds until they may. Takes nothing.

        A request of more than the burst passes once the bucket is full, and leaves a debt: it would never pass else.
        """
        if self.rate <= 0:
            return 0.0
        self._level = min(self.burst, self._level + max(0.0, now - self._at) * self.rate)
        self._at = max(self._at, now)
        needed = min(float(count), self.burst)
        return max(0.0, (needed - self._level) / self.rate)

    def take(self, count: int, now: float) -> float:
        """As `wait`, and takes them when it answers 0."""
        seconds = self.wait(count, now)
        if seconds <= 0 and self.rate > 0:
            self._level -= count
        return seconds

    @property
    def left(self) -> int:
        """Whole tokens, as of the last call."""
        return max(0, math.floor(self._level))

    @property
    def full_in(self) -> float:
        """Seconds until it is full, as of the last call."""
        return (self.burst - self._level) / self.rate if self.rate > 0 else 0.0


class Quota:
    """The limits of one kind of work. `unit` names what is counted (events, requests); `rate` is of all callers,
    `key_rate` of a key that has none of its own; 0 for no limit."""

    def __init__(
        self, unit: str, rate: float, key_rate: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._unit, self._key_rate, self._clock = unit, key_rate, clock
        self._all = TokenBucket(rate, max(rate, 1.0))
        self._by_key: dict[str, TokenBucket] = {}

    def check(self, key: Key | None) -> dict[str, str]:
        """As `take` of one, but takes nothing: for refusing before a body is read."""
        return self._decide(key, 1, take=False)

    def take(self, key: Key | None, count: int) -> dict[str, str]:
        """Takes so many; answers with headers for the caller. Raises a `rate_limited` problem, having taken nothing."""
        return self._decide(key, count, take=True)

    def _decide(self, key: Key | None, count: int, *, take: bool) -> dict[str, str]:
        now = self._clock()
        named = [("all", self._all)] if self._all.rate > 0 else []
        if (own := self._own(key)) is not None:
            named.insert(0, ("key", own))
        for name, bucket in named:
            seconds = bucket.wait(count, now)
            if seconds > 0:
                whose = "of this key" if name == "key" else "for all clients"
                raise ProblemError(
                    "rate_limited",
                    f"the limit {whose} is reached: {bucket.rate:g} {self._unit}/s",
                    retry_after=math.ceil(seconds),
                    headers=self._headers(named),
                )
        if take:
            for _, bucket in named:
                bucket.take(count, now)
        return self._headers(named)

    def _own(self, key: Key | None) -> TokenBucket | None:
        if key is None:
            return None
        rate = self._key_rate if key.rate is None else key.rate
        if rate <= 0:
            return None
        burst = max(1.0, rate if key.burst is None else key.burst)
        bucket = self._by_key.get(key.id)
        if bucket is None or (bucket.rate, bucket.burst) != (rate, burst):
            bucket = self._by_key[key.id] = TokenBucket(rate, burst)
        return bucket

    def _headers(self, named: list[tuple[str, TokenBucket]]) -> dict[str, str]:
        if not named:
            return {}
        policies = (
            f'"{n}";q={math.floor(b.burst)};w={max(1, math.ceil(b.burst / b.rate))};qu="{self._unit}"'
            for n, b in named
        )
        standings = (f'"{n}";r={b.left};t={math.ceil(b.full_in)}' for n, b in named)
        return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(standings)}


class UserLimits:
    """A bucket for each user that sends now; `rate` events a second, 0 for no limit.

    Keeps the `most` users heard of last: who is forgotten begins with a full bucket.
    """

    def __init__(self, rate: float, burst: float, most: int = 50_000) -> None:
        self._rate, self._burst, self._most = rate, max(burst, 1.0), most
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    @property
    def on(self) -> bool:
        return self._rate > 0

    def take(self, user_id: str, now: float) -> float:
        """Takes one event; 0, or the seconds until there is one to take."""
        bucket = self._buckets.get(user_id)
        if bucket is None:
            bucket = self._buckets[user_id] = TokenBucket(self._rate, self._burst)
            if len(self._buckets) > self._most:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(user_id)
        return bucket.take(1, now)
