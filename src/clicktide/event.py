"""The event as clients send it: one msgspec type that holds every rule of a single field.

The rules between fields (an order has an order_id, nothing comes from the future) are `parse`'s.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

MAX_BYTES = 32 * 1024
VERSION = 1
VERSIONS = (VERSION - 1, VERSION)  # a worker accepts N and N-1, so that producers may be upgraded after it

# 10 billion in major units: nine million events of this size still fit a signed 64-bit sum.
MAX_AMOUNT = 10**12
MAX_MS = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z, the last time RFC 3339 can write

Id = Annotated[str, Meta(min_length=1, max_length=64)]
UserNumber = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Millis = Annotated[int, Meta(ge=0, le=MAX_MS)]
Time = Annotated[int, Meta(ge=0, le=MAX_MS)] | Annotated[datetime, Meta(tz=True)]
Word = Annotated[str, Meta(max_length=64)]
Page = Annotated[str, Meta(max_length=2048)]
Type = Literal["view", "click", "cart", "favorite", "order", "pay", "refund"]
Gender = Literal["female", "male", "unknown"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


class Event(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """One event; the fields are those of docs/semantics.md. `attributes` holds what we do not know."""

    event_id: Id
    type: Type
    user_id: Id | UserNumber
    occurred_at: Time
    item_id: Id | None = None
    category_id: Id | None = None
    merchant_id: Id | None = None
    brand_id: Id | None = None
    order_id: Id | None = None
    amount: Annotated[int, Meta(ge=0, le=MAX_AMOUNT)] | None = None
    quantity: Annotated[int, Meta(ge=1, le=1_000_000_000)] | None = None
    gender: Gender | None = None
    age_range: Word | None = None
    province: Word | None = None
    channel: Word | None = None
    device_id: Word | None = None
    session_id: Word | None = None
    anonymous_id: Word | None = None
    page: Page | None = None
    sent_at: Time | None = None
    received_at: Millis | None = None
    v: int | None = None
    attributes: dict[str, Any] | None = None


FIELDS = frozenset(Event.__struct_fields__)


def millis(time: int | datetime) -> int:
    """Milliseconds since the epoch, rounded down."""
    return time if isinstance(time, int) else (time - _EPOCH) // _MS
