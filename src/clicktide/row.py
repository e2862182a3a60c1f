"""The row: a parsed event as a plain list, the shape it has on the wire between bolts and in both stores.

A list costs a quarter of an object to build and encode. The positions are named here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any, Final

Row = list[Any]

COLUMNS: Final = (
    "event_id",  # str 1..64
    "type",  # one of TYPES
    "user_id",  # str 1..64
    "occurred_at",  # int ms since the epoch, clock skew corrected
    "received_at",  # int ms
    "shard",  # int, logical shard of the user
    "item_id",  # str or None, like all that follow where no type is given
    "category_id",
    "merchant_id",
    "brand_id",
    "order_id",
    "amount",  # int minor units, or None
    "quantity",  # int >= 1
    "gender",  # one of GENDERS
    "age_range",
    "province",
    "channel",
    "extra",  # JSON object text of device_id, session_id, anonymous_id, page, attributes; or None
    "fingerprint",  # str, 8 characters: digest of the business fields
    "topic_id",  # str, 6 characters: digest of the id of the topic the record was first written to
    "partition",  # int, its partition there
    "offset",  # int, its offset there
)

(
    EVENT_ID,
    TYPE,
    USER_ID,
    OCCURRED_AT,
    RECEIVED_AT,
    SHARD,
    ITEM_ID,
    CATEGORY_ID,
    MERCHANT_ID,
    BRAND_ID,
    ORDER_ID,
    AMOUNT,
    QUANTITY,
    GENDER,
    AGE_RANGE,
    PROVINCE,
    CHANNEL,
    EXTRA,
    FINGERPRINT,
    TOPIC_ID,
    PARTITION,
    OFFSET,
) = range(len(COLUMNS))

TYPES: Final = ("view", "click", "cart", "favorite", "order", "pay", "refund")
GENDERS: Final = ("female", "male", "unknown")
MONEY_TYPES: Final = frozenset({"order", "pay", "refund"})

# Where a row stands in a timeline: (occurred_at ms, event_id); timelines run from high to low.
Position = tuple[int, str]
position_of: Callable[[Row], Position] = itemgetter(OCCURRED_AT, EVENT_ID)
