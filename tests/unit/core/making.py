"""Makes what the core's tests feed: settings, events as clients send them, and rows."""

from __future__ import annotations

import json
from typing import Any

from clicktide.parse import Parser, Rejection, topic_digest
from clicktide.row import Row
from clicktide.settings import Settings

NOW = 1_760_000_040_000  # ms; a round minute
TOPIC_ID = "0123456789abcdef0123456789abcdef"
DIGEST = topic_digest(TOPIC_ID)
PARSER = Parser(Settings({}))


def event(event_id: str = "e1", **fields: Any) -> dict[str, Any]:
    """A good view event as clients send it, with `fields` over it; None leaves a field out."""
    made = {"event_id": event_id, "type": "view", "user_id": "u1", "occurred_at": NOW - 1000, **fields}
    return {k: v for k, v in made.items() if v is not None}


def raw(event_id: str = "e1", **fields: Any) -> bytes:
    """The same as bytes."""
    return json.dumps(event(event_id, **fields), ensure_ascii=False).encode("utf-8", "surrogatepass")


def pay(event_id: str, amount: int, **fields: Any) -> dict[str, Any]:
    return event(event_id, type="pay", order_id=f"o-{event_id}", amount=amount, **fields)


def row(
    event_id: str = "e1", offset: int = 0, partition: int = 0, digest: str = DIGEST, **fields: Any
) -> Row:
    """The row that the parser makes of `event(event_id, **fields)`."""
    made = PARSER.row(raw(event_id, **fields), offset, NOW, partition, digest)
    assert not isinstance(made, Rejection), made
    return made


class Clock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds
