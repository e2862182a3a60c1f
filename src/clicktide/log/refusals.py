"""Why the brokers would not have us: what both clients say only in passing, while the call itself just runs out of time.

Kept for a moment, so that the error of the call can say it: a wrong password must not look like a broker that is away.
"""

from __future__ import annotations

import time
from collections.abc import Callable

# Clients try again at least every second, and are refused again.
_RECENT_S = 15.0


class Refusals:
    """The last refusal. `note` may be called from any thread; `clock` answers seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: tuple[float, str] | None = None

    def note(self, why: str) -> None:
        self._last = (self._clock(), " ".join(why.split())[:300])

    def with_reason(self, text: str) -> str:
        """`text`, and after it why we were refused a moment ago, if we were."""
        last = self._last
        if last is None or self._clock() - last[0] > _RECENT_S or last[1] in text:
            return text
        return f"{text} ({last[1]})"
