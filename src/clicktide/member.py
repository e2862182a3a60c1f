"""Members: an event as a user's timeline in Redis holds it, small to keep and cheap to print.

A member is the event's JSON object, as callers see it, in which each piece of syntax that most events have is one control
character. JSON text has none of its own, they are escaped there (RFC 8259, section 7): so putting the pieces back gives exactly the object,
for a whole page at once. docs/decisions/0008-queries.md has the figures.

The event's id comes first and is followed by a control character, so that Redis, which orders members of one score by their bytes, orders
them as positions (occurred_at, event_id) do. Escaped ids are the exception, which it may take for higher ones, and members that are JSON arrays of the row's first 18 columns, as
earlier releases wrote them all, and this one those whose `extra` is no object: `printed` takes neither, `rows_of` takes all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import msgspec
import orjson

from clicktide.row import (
    AGE_RANGE,
    AMOUNT,
    BRAND_ID,
    CATEGORY_ID,
    COLUMNS,
    EXTRA,
    GENDER,
    GENDERS,
    OCCURRED_AT,
    PROVINCE,
    TYPE,
    TYPES,
    Position,
    Row,
    position_of,
)

# 0x00, 0x09, 0x0a and 0x0d are left alone: a member is one line of text to whoever looks.
_KINDS = {kind: chr(0x02 + i) for i, kind in enumerate(TYPES)}
_OF_ONE = {gender: chr(0x0E + i) for i, gender in enumerate(GENDERS)}
_PIECES = {
    "\x01": '{"event_id":"',
    **{code: f'","type":"{kind}","user_id":"' for kind, code in _KINDS.items()},
    "\x0b": '","occurred_at":',
    "\x0c": ',"received_at":',
    "\x11": ',"item_id":"',
    "\x12": ',"category_id":"',
    "\x13": ',"merchant_id":"',
    "\x14": ',"brand_id":"',
    "\x15": ',"order_id":"',
    "\x16": ',"amount":',
    **{code: f',"quantity":1,"gender":"{gender}"' for gender, code in _OF_ONE.items()},
    "\x17": ',"age_range":"',
    "\x18": ',"province":"',
    "\x19": ',"channel":"',
    "\x1c": '"device_id":"',
    "\x1d": '","session_id":"',
    "\x1e": ",",  # in front of what the row has in `extra`
}
_PUT_BACK = [(code.encode(), piece.encode()) for code, piece in _PIECES.items()]
_BEGIN, _ITS_EXTRA = b"\x01", b"\x1e"
_EXTRA = re.compile(r"\{[^\x00-\x1f]{5,}\}")  # the shortest is {"a":1}
_POSITION = re.compile(rb"\x01([^\x00-\x1f]+)[\x02-\x08][^\x00-\x1f]+\x0b(-?\d+)\x0c")

_TEXTS = itemgetter(
    *[
        i
        for i, name in enumerate(COLUMNS[:EXTRA])
        if name.endswith("_id") or name in {"age_range", "province", "channel"}
    ]
)
# A row's columns up to `extra` as an object of JSON; those without a value are left out.
Columns: Any = msgspec.defstruct(
    "Columns",
    [(name, Any) if i <= OCCURRED_AT else (name, Any, None) for i, name in enumerate(COLUMNS[:EXTRA])],
    omit_defaults=True,
    gc=False,
)


class Counted(msgspec.Struct, gc=False):
    """What sums take of an event; times in ms, amounts in minor units."""

    type: str
    occurred_at: int
    category_id: str | None = None
    brand_id: str | None = None
    amount: int | None = None
    gender: str = "unknown"
    age_range: str | None = None
    province: str | None = None


_encode = msgspec.json.Encoder().encode
_known = msgspec.json.Decoder(list[Columns]).decode
_counted = msgspec.json.Decoder(list[Counted]).decode


def members(rows: Sequence[Row]) -> list[bytes]:
    """The rows' events as members, in their order."""
    plain = b"\\" not in _encode([_TEXTS(row) for row in rows])
    out = []
    kinds, of_one = _KINDS, _OF_ONE
    for given in rows:
        row = given if plain else _escaped(given)
        (
            event_id, kind, user_id, occurred_at, received_at, _, item, category, merchant, brand,
            order, amount, quantity, gender, age_range, province, channel, extra,
        ) = row[: EXTRA + 1]  # fmt: skip
        text = f"\x01{event_id}{kinds[kind]}{user_id}\x0b{occurred_at}\x0c{received_at}"
        if item is not None:
            text += f'\x11{item}"'
        if category is not None:
            text += f'\x12{category}"'
        if merchant is not None:
            text += f'\x13{merchant}"'
        if brand is not None:
            text += f'\x14{brand}"'
        if order is not None:
            text += f'\x15{order}"'
        if amount is not None:
            text += f"\x16{amount}"
        text += of_one[gender] if quantity == 1 else f',"quantity":{quantity},"gender":"{gender}"'
        if age_range is not None:
            text += f'\x17{age_range}"'
        if province is not None:
            text += f'\x18{province}"'
        if channel is not None:
            text += f'\x19{channel}"'
        if extra:
            if _EXTRA.fullmatch(extra) is None:
                out.append(_encode(given[: EXTRA + 1]))
                continue
            inner = extra[1:-1].replace('"device_id":"', "\x1c").replace('","session_id":"', "\x1d")
            text += f"\x1e{inner}"
        out.append((text + "}").encode())
    return out


def _escaped(row: Row) -> Row:
    return [
        _encode(value).decode()[1:-1] if isinstance(value, str) and i != EXTRA else value
        for i, value in enumerate(row[: EXTRA + 1])
    ]


def printed(found: Sequence[bytes]) -> bytes | None:
    """The events as JSON objects with commas between, in the order in which they come; None where that need not be the order of
    their positions."""
    text = b",".join(found)
    if text.count(_BEGIN) != len(found) or b"\\" in text:
        return None
    return _whole(text)


def position(member: bytes) -> Position:
    """Of one that `printed` takes."""
    found = _POSITION.match(member)
    assert found is not None
    return int(found[2]), found[1].decode()


def rows_of(found: Sequence[bytes]) -> list[Row]:
    """The events as rows up to `extra`, from the highest position to the lowest; what no member says of them (the shard) is None."""
    rows: list[Row] = orjson.loads(b"[" + b",".join([m for m in found if m[:1] != _BEGIN]) + b"]")
    ours = [m.partition(_ITS_EXTRA) for m in found if m[:1] == _BEGIN]
    if ours:
        heads = _whole(b",".join([head + b"}" if extra else head for head, extra, _ in ours]))
        extras = _whole(b"\n".join([inner for _, _, inner in ours])).decode().split("\n")
        for event, inner in zip(_known(b"[" + heads + b"]"), extras, strict=True):
            rows.append([*msgspec.structs.astuple(event), "{" + inner if inner else None])
    rows.sort(key=position_of, reverse=True)
    return rows


def counted(found: Sequence[bytes]) -> list[Counted]:
    """What sums take of the events, in the order in which they come."""
    text = b",".join(found)
    if text.count(_BEGIN) != len(found):
        return [counted_of(row) for row in rows_of(found)]
    events: list[Counted] = _counted(b"[" + _whole(text) + b"]")
    return events


def counted_of(row: Row) -> Counted:
    """What sums take of the row."""
    return Counted(
        row[TYPE],
        row[OCCURRED_AT],
        row[CATEGORY_ID],
        row[BRAND_ID],
        row[AMOUNT],
        row[GENDER],
        row[AGE_RANGE],
        row[PROVINCE],
    )


def _whole(text: bytes) -> bytes:
    for code, piece in _PUT_BACK:
        text = text.replace(code, piece)
    return text
