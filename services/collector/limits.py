"""Limits of the collector: a room, of so many bytes or events at a time, of which one key may hold a part."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from services.problems import ProblemError


class Room:
    """What uploads may hold at the same time; `what` names it. One owner may hold `part` of it; nobody in particular,
    all."""

    def __init__(self, limit: float, part: float = math.inf, what: str = "uploads") -> None:
        self._limit, self._part, self._what, self.used = limit, part, what, 0
        self._by_owner: dict[str, int] = {}

    @contextmanager
    def held(self, owner: str | None = None) -> Iterator[Callable[[int], None]]:
        """Gives a function that takes some until the block ends. Past the limit it raises an `overloaded` problem; a
        single upload always fits."""
        mine = 0

        def take(size: int) -> None:
            nonlocal mine
            if self.used > mine and self.used + size > self._limit:
                raise ProblemError("overloaded", f"too many {self._what} at the same time", retry_after=1)
            theirs = self._by_owner.get(owner, 0) if owner is not None else 0
            if theirs > mine and theirs + size > self._part:
                raise ProblemError(
                    "overloaded", f"too many {self._what} of this key at the same time", retry_after=1
                )
            mine += size
            self.used += size
            if owner is not None:
                self._by_owner[owner] = theirs + size

        try:
            yield take
        finally:
            self.used -= mine
            if owner is not None and mine:
                left = self._by_owner[owner] - mine
                if left:
                    self._by_owner[owner] = left
                else:
                    del self._by_owner[owner]
