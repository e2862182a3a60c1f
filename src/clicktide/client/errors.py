"""Errors of the client: what its caller sees, and what its background thread does something about."""

from __future__ import annotations


class ClientError(Exception):
    """Base of what `Client` raises, beside ValueError and TypeError for what is no event."""


class QueueFull(ClientError):
    """As much waits as may wait, and `when_full` is "raise". The event was not taken."""


class ClientClosed(ClientError):
    """`close` was called before. The event was not taken."""


class Again(Exception):
    """Not accepted, or nobody knows: the same events are to be sent again. `retry_after` in seconds, None where not said."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class Refused(Exception):
    """The request as a whole was refused for good, which says nothing of its single events."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code, self.detail = code, detail
