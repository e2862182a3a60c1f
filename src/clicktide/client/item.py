"""Items: an event as it waits, already text, so that what its caller changes later changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


@dataclass(slots=True)
class Item:
    """`text` is one JSON object as UTF-8; `tried` is when it was first sent (monotonic s), None before that."""

    number: int
    event_id: str
    text: bytes
    tried: float | None = None

    def sent(self, now_ms: int) -> bytes:
        """The text to send: with the sender's clock, by which the collector takes a wrong clock out of the event's time."""
        return b'%s,"sent_at":%d}' % (self.text[:-1], now_ms)


def item(number: int, event: Mapping[str, Any], now_ms: int, new_id: Callable[[], str]) -> Item:
    """An event with `event_id` and `occurred_at`, made now where it has none.

    A datetime as `occurred_at` needs a zone. Raises TypeError and ValueError for what is no JSON.
    """
    out = {name: value for name, value in event.items() if name != "sent_at"}
    out.setdefault("event_id", "")
    out["event_id"] = str(out["event_id"] or new_id())
    occurred = out.get("occurred_at")
    if isinstance(occurred, datetime):
        if occurred.tzinfo is None:
            raise ValueError("occurred_at: expected a datetime with a zone")
        occurred = round(occurred.timestamp() * 1000)
    out["occurred_at"] = now_ms if occurred is None else occurred
    return Item(number, out["event_id"], _encode(out).encode("utf-8"))
