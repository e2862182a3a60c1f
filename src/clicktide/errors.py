"""The project's errors: each a different thing to do for its catcher, with `retriable` and a `code`.

`retriable` says whether the same call may succeed later; `code` is stable, goes to headers and metrics, and is
documented in docs/semantics.md.
"""

from __future__ import annotations


class ClicktideError(Exception):
    """Base of all; its text is one line, meant for a person."""

    retriable = False
    code = "error"


class SettingError(ClicktideError):
    """A setting is unknown, or its value is not what it has to be."""

    code = "bad_setting"


class LogError(ClicktideError):
    code = "log"


class LogUnavailable(LogError):
    """The broker did not answer in time, or refused for now."""

    retriable = True
    code = "log_unavailable"


class OffsetOutOfRange(LogError):
    """Retention has passed the position."""

    code = "offset_out_of_range"

    def __init__(self, topic: str, partition: int, offset: int, earliest: int) -> None:
        super().__init__(f"{topic}:{partition} offset {offset} is gone, the earliest kept is {earliest}")
        self.topic, self.partition, self.offset, self.earliest = topic, partition, offset, earliest


class RecordTooLarge(LogError):
    code = "record_too_large"


class UnknownTopic(LogError):
    code = "unknown_topic"


class StoreError(ClicktideError):
    """A store refused; `store` names it as in `tide-stage`: `redis`, `mysql.<dsn>`."""

    code = "store"

    def __init__(self, store: str, detail: str) -> None:
        super().__init__(f"{store}: {detail}")
        self.store = store


class StoreUnavailable(StoreError):
    """The store is away, too slow, or overloaded: store-wide, not the event's fault."""

    retriable = True
    code = "store_unavailable"


class StoreRefused(StoreError):
    """The store answered, and will answer the same again: the event's own fault."""

    code = "store_refused"
