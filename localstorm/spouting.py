"""Decides when a spout task is asked for its next tuples.

Never while the limit of pending trees is reached, what it feeds is full, or it is deactivated; at once while
it emits; after an empty answer with a growing pause (1 ms up to 10 ms). Pure: the clock is passed in.
"""

from collections import deque

IDLE_FIRST = 0.001
IDLE_MOST = 0.010
"""Seconds between two questions to a spout that has nothing."""

AHEAD_SECONDS = 0.002
AHEAD_MOST = 16
"""A fast spout is asked several times ahead, for at most this long: an ack must not queue behind more."""


class SpoutState:
    """What the hub knows of one spout task. `max_pending` is 0 for no limit."""

    def __init__(self, max_pending: int = 0) -> None:
        self.max_pending = max_pending
        self.pending = 0
        """Trees of this task in flight."""
        self.reset()

    def reset(self) -> None:
        """A new process: nothing asked, nothing pending, not active."""
        self.waiting: deque[str] = deque()
        """Commands sent and not yet answered by a sync."""
        self.asked = 0
        self.emitted = False
        self.active = False
        self.idle = 0.0
        self.idle_until = 0.0
        self.service = AHEAD_SECONDS
        self.answered = 0.0
        self.pending = 0

    def asks(self, now: float) -> int:
        """How many `next` commands to send now."""
        if not self.active or now < self.idle_until:
            return 0
        ahead = 1 if self.idle else min(AHEAD_MOST, max(1, int(AHEAD_SECONDS / max(self.service, 1e-5))))
        room = self.max_pending - self.pending if self.max_pending else ahead
        return max(0, min(ahead, room) - self.asked)

    def sent(self, command: str, now: float) -> None:
        """A command was queued for it."""
        if not self.waiting:
            self.answered = now
        self.waiting.append(command)
        if command == "next":
            self.asked += 1

    def synced(self, now: float) -> str | None:
        """It answered the oldest command; says which, None if it was never asked."""
        if not self.waiting:
            return None
        command = self.waiting.popleft()
        if command != "next":
            if command == "fail":
                self.wake()
            self.answered = now
            return command
        self.asked -= 1
        self.service += 0.2 * (now - self.answered - self.service)
        self.answered = now
        if self.emitted:
            self.wake()
        else:
            self.idle = min(self.idle * 2 or IDLE_FIRST, IDLE_MOST)
            self.idle_until = now + self.idle
        self.emitted = False
        return command

    def wake(self) -> None:
        """It may have something at once."""
        self.idle = 0.0
        self.idle_until = 0.0
