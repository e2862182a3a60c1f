"""Trials: when a task may try its suspects, and which of them goes out next.

Promises: a trial begins with nothing else of the task in flight, and while the task has the turn that all tasks of the namespace
share; turns are short, and between two of them the other slices have as long.
"""

from __future__ import annotations

from clicktide import suspects
from clicktide.flight import Entry
from clicktide.log.port import TopicPartition
from clicktide.suspects import Docket, Notes

_ASK_EVERY_S = 1.0


class Trials:
    """The trials of one task, `who` of all tasks. Times are seconds of one clock; `acks` is how many slices of the task have got
    through in this life; `redis`: whether Redis, which keeps the turn, answers."""

    def __init__(self, notes: Notes, who: str, fails: int) -> None:
        self.docket = Docket(fails)
        self._notes, self._who = notes, who
        self._on_trial = ""  # the slice that is, by its id
        self._turn_until: float | None = None
        self._drained = False
        self._asked_at = float("-inf")

    def has_turn(self, now: float, acks: int, *, in_flight: bool, redis: bool) -> bool:
        """Whether it is the suspects' turn: nothing else goes out until it is over."""
        docket = self.docket
        if self._turn_until is None:
            if not docket.due(now, acks) or not self._ask(now, redis):
                return False
            self._turn_until, self._drained = now + suspects.DRAIN_S, False
        elif now - self._asked_at >= _ASK_EVERY_S:
            self._ask(now, redis)
        over = now >= self._turn_until or (not in_flight and not docket.due(now, acks))
        if over and not self._on_trial:
            self.end_turn()
            docket.rest(now + suspects.TURN_S)
        return self._turn_until is not None

    def next(self, now: float, acks: int) -> tuple[TopicPartition, Entry]:
        """The next suspect. Only for who has the turn, with nothing in flight."""
        if not self._drained:
            self._drained, self._turn_until = True, now + suspects.TURN_S
        return self.docket.pop(now, acks)

    def began(self, slice_id: str) -> None:
        self._on_trial = slice_id

    def ended(self, slice_id: str, now: float, *, well: bool) -> bool:
        """Whether this slice was the one on trial; if so it is over."""
        if slice_id != self._on_trial:
            return False
        self._on_trial = ""
        self.docket.ended(now, well=well)
        return True

    def end_turn(self) -> None:
        if self._turn_until is not None:
            self._turn_until = None
            self._notes.leave_turn(self._who)

    def clear(self) -> None:
        """All that was on its way is read again."""
        self.docket.clear()
        self._on_trial = ""

    def _ask(self, now: float, redis: bool) -> bool:
        self._asked_at = now
        if not redis or self._notes.take_turn(self._who):
            return True
        self.docket.rest(now + _ASK_EVERY_S)
        return False
