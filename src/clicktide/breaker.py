"""Breaker: stops calling a store that keeps failing, and lets one call probe it now and then.

Pure: the clock is passed in. Closed -> (failures in a row) -> open -> (probe time over) -> half open -> closed, or
open again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

Clock = Callable[[], float]

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half_open"
# An open breaker that nothing has asked for so long says nothing of its store any more, s.
SILENT_S = 30.0


@dataclass(slots=True)
class Breaker:
    """One store's breaker. `clock` answers seconds from any fixed point."""

    clock: Clock
    failures_to_open: int
    probe_s: float
    failures: int = 0
    _failing_since: float = 0.0
    _opened_at: float | None = None
    _probing: bool = False

    @property
    def state(self) -> str:
        if self._opened_at is None:
            return CLOSED
        return HALF_OPEN if self._probing else OPEN

    @property
    def away_s(self) -> float:
        """For how long the store has been away, s: since the first failure of those that opened the breaker; 0 while closed."""
        return 0.0 if self._opened_at is None else self.clock() - self._failing_since

    def reported(self) -> str:
        """The state for those who want to know how the store is: closed, too, where no call has tried it of late."""
        if self._opened_at is not None and self.clock() - self._opened_at > max(SILENT_S, 2 * self.probe_s):
            return CLOSED
        return self.state

    def allows(self) -> bool:
        """Whether to call the store now. While open it says yes once every `probe_s`, and that call is the probe."""
        if self._opened_at is None:
            return True
        if self.clock() - self._opened_at < self.probe_s:
            return False
        self._opened_at = self.clock()
        self._probing = True
        return True

    def succeeded(self) -> None:
        self.failures, self._opened_at, self._probing = 0, None, False

    def failed(self) -> None:
        if not self.failures:
            self._failing_since = self.clock()
        self.failures += 1
        self._probing = False
        if self._opened_at is not None or self.failures >= self.failures_to_open:
            self._opened_at = self.clock()


@dataclass(slots=True)
class Breakers:
    """A breaker for each store, made on first use."""

    clock: Clock
    failures_to_open: int
    probe_s: float
    _by_store: dict[Hashable, Breaker] = field(default_factory=dict)

    def of(self, store: Hashable) -> Breaker:
        breaker = self._by_store.get(store)
        if breaker is None:
            breaker = self._by_store[store] = Breaker(self.clock, self.failures_to_open, self.probe_s)
        return breaker

    def away(self) -> list[str]:
        """The stores that are not called just now, but for a probe."""
        return [str(store) for store, b in self._by_store.items() if b.state != CLOSED]

    def states(self) -> dict[str, str]:
        """Those that are reported as not closed."""
        said = {str(store): b.reported() for store, b in self._by_store.items()}
        return {store: state for store, state in said.items() if state != CLOSED}
