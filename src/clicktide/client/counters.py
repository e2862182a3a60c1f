"""Counters: what became of the events that were given to a client."""

from __future__ import annotations

from typing import NamedTuple


class Counters(NamedTuple):
    """`taken` = `accepted` + `rejected` + `given_up` + `waiting` at any moment; `dropped` ones were never taken.

    `waiting` includes those under way. `last_error` is "" once a request has succeeded again.
    """

    taken: int = 0
    accepted: int = 0
    rejected: int = 0
    given_up: int = 0
    dropped: int = 0
    waiting: int = 0
    requests: int = 0
    retries: int = 0
    last_error: str = ""
