"""Parse: bytes of the log to rows; decides what is good and gives each refusal a code.

It promises: a bad record never harms its neighbours; the same bytes at the same place with the same timestamp give the
same answer for ever (nothing here reads a clock), so a replay decides as the first run did.
"""

from __future__ import annotations

from base64 import b64encode
from binascii import b2a_base64
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import astuple

from clicktide import event
from clicktide.event import Event, millis
from clicktide.pseudonym import pseudonym_of
from clicktide.row import EXTRA, FINGERPRINT, ITEM_ID, MONEY_TYPES, OFFSET, QUANTITY, TYPE, USER_ID, Row
from clicktide.settings import Settings
from clicktide.shards import shard_of

CODES = {
    "too_large": f"The record has more than {event.MAX_BYTES} bytes.",
    "not_utf8": "The record is not UTF-8 text.",
    "not_json": "The record is not one JSON value.",
    "not_object": "The record is JSON, but not an object.",
    "missing_field": "A required field is missing.",
    "wrong_type": "A field has a value of another JSON type than it has to have.",
    "bad_value": "A field's value is out of its range, too long, empty, or not one of the listed words.",
    "missing_order_id": "An order, pay or refund has no order_id.",
    "missing_amount": "An order, pay or refund has no amount.",
    "future": "occurred_at, or a received_at that is not the collector's, lies further ahead than `events.future_s` allows.",
    "unsupported_version": f"`v` is not one of {', '.join(map(str, event.VERSIONS))}.",
}

_decode = msgspec.json.Decoder(Event).decode
_decode_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
# One value a line, which holds no line break of its own: half of what a call for each costs.
_encode_lines = msgspec.json.Encoder().encode_lines
_business_of = itemgetter(TYPE, USER_ID, *range(ITEM_ID, QUANTITY + 1))
_new_digest = blake2b(digest_size=6).copy  # which costs half of making one
_MAX_CACHED_USERS = 200_000
# A text of so many characters is within the limit whatever they are: UTF-8 takes at most 4 bytes for one.
_SURELY_SMALL = event.MAX_BYTES // 4


class _Extra(msgspec.Struct, omit_defaults=True, gc=False):
    """What is kept but has no column."""

    device_id: str | None = None
    session_id: str | None = None
    anonymous_id: str | None = None
    page: str | None = None
    attributes: dict[str, Any] | None = None


class Rejection(NamedTuple):
    """Why a record is refused: a code of `CODES`, and a line for a person that names the field."""

    code: str
    detail: str


class Checked(NamedTuple):
    """An event that the collector may put on the log: `value` is its canonical JSON with `received_at`."""

    event_id: str
    user_id: str
    value: bytes


class Rejected(NamedTuple):
    """A refused record of a slice, by its offset."""

    offset: int
    code: str
    detail: str


def topic_digest(topic_id: str) -> str:
    """6 characters that tell one topic from another, and from its former self (claims keep it)."""
    return b64encode(blake2b(topic_id.encode(), digest_size=4).digest())[:6].decode()


def fingerprints(rows: Iterable[Row]) -> list[str]:
    """8 characters a row: a digest of the business fields (type, user, item, category, merchant, brand, order, amount, quantity),
    without timestamps, so a client's retry has the same."""
    digests = []
    # As JSON, which no text in a field can imitate: with a mere separator other events could have equal digests.
    for business in _encode_lines(map(_business_of, rows)).split(b"\n")[:-1]:
        digest = _new_digest()
        digest.update(business)
        digests.append(digest.digest())
    # 6 bytes are 8 characters, so the text of all is the texts of each.
    text = b2a_base64(b"".join(digests), newline=False).decode()
    return [text[i : i + 8] for i in range(0, len(text), 8)]


class Parser:
    """Turns records into rows. Holds only settings and a bounded cache of users' shards."""

    def __init__(self, settings: Settings) -> None:
        self._shards = settings.integer("shards.count")
        self._future_ms = int(settings.number("events.future_s") * 1000)
        self._shard_of: dict[str, int] = {}
        self._pseudonym = pseudonym_of(settings)

    def check(self, raw: bytes, received_at: int) -> Checked | Rejection:
        """The collector's door: `raw` is one JSON value, `received_at` is now (ms)."""
        decoded = self.decode(raw)
        if isinstance(decoded, Rejection):
            return decoded
        decoded.received_at = received_at
        if (refused := self._rules(decoded, received_at)) is not None:
            return refused
        decoded.occurred_at = millis(decoded.occurred_at)
        if decoded.sent_at is not None:
            decoded.sent_at = millis(decoded.sent_at)
        try:
            value = _encode(decoded)
        except RecursionError:
            return Rejection("bad_value", "attributes: nested too deep")
        if len(value) > event.MAX_BYTES:
            return Rejection("too_large", f"{len(value)} bytes, at most {event.MAX_BYTES} are taken")
        return Checked(decoded.event_id, str(decoded.user_id), value)

    def slice(
        self,
        values: Iterable[str | bytes],
        offsets: Sequence[int],
        timestamps: Sequence[int],
        partition: int,
        topic: str,
    ) -> tuple[list[Row], list[Rejected]]:
        """Rows of the good records of one slice, and the refused ones, both in offset order.

        `values` are the records' bytes, `topic` its digest (`topic_digest`), `timestamps` the log's (ms): one stands in for a
        missing `received_at`.
        """
        rows: list[Row] = []
        refused: list[Rejected] = []
        extras: list[tuple[Row, _Extra]] = []
        future_ms, shards, hashed = self._future_ms, self._shard_of, self._pseudonym
        for value, offset, timestamp in zip(values, offsets, timestamps, strict=True):
            e = self._event(value)
            if isinstance(e, Rejection):
                refused.append(Rejected(offset, *e))
                continue
            # One call for all fields: an attribute each costs more than checking them.
            (
                event_id, kind, user_id, occurred, item, category, merchant, brand, order, amount, quantity,
                gender, age_range, province, channel, device, session, anonymous, page, sent_at, received_at, v, attributes,
            ) = astuple(e)  # fmt: skip
            received = timestamp if received_at is None else received_at
            if received > timestamp + future_ms:
                # Only the collector knows when it received: a writer of its own that says otherwise would move the limit.
                refused.append(Rejected(offset, *_future("received_at", received - timestamp, future_ms)))
                continue
            # What no rule can refuse is not asked about: a call costs as much as all these.
            if not (
                type(occurred) is int
                and occurred <= received
                and sent_at is None
                and (v is None or v in event.VERSIONS)
                and (kind not in MONEY_TYPES or (order is not None and amount is not None))
            ):
                occurred = self._occurred(e, received, timestamp)
                if isinstance(occurred, Rejection):
                    refused.append(Rejected(offset, *occurred))
                    continue
            if not isinstance(user_id, str):
                user_id = str(user_id)
            if hashed is not None:
                user_id = hashed(user_id)
                device = None if device is None else hashed(device)
                anonymous = None if anonymous is None else hashed(anonymous)
            shard = shards.get(user_id)
            row = [
                event_id,
                kind,
                user_id,
                occurred,
                received,
                self.shard(user_id) if shard is None else shard,
                item,
                category,
                merchant,
                brand,
                order,
                amount,
                quantity or 1,
                gender or "unknown",
                age_range,
                province,
                channel,
                None,
                None,
                topic,
                partition,
                offset,
            ]
            rows.append(row)
            if (
                session is not None
                or device is not None
                or page is not None
                or anonymous is not None
                or attributes
            ):
                extras.append((row, _Extra(device, session, anonymous, page, attributes or None)))
        for made, digest in zip(rows, fingerprints(rows), strict=True):
            made[FINGERPRINT] = digest
        for deep in _add_extras(extras):
            rows.remove(deep)
            refused.append(Rejected(deep[OFFSET], "bad_value", "attributes: nested too deep"))
            refused.sort()
        return rows, refused

    def row(
        self, value: str | bytes, offset: int, timestamp: int, partition: int, topic: str
    ) -> Row | Rejection:
        """One record as a row; a slice of many costs half as much a record."""
        rows, refused = self.slice((value,), (offset,), (timestamp,), partition, topic)
        return rows[0] if rows else Rejection(refused[0].code, refused[0].detail)

    def _event(self, value: str | bytes) -> Event | Rejection:
        try:
            small = len(value) <= _SURELY_SMALL or _size(value) <= event.MAX_BYTES
            return _decode(value) if small else self.decode(value)
        except (msgspec.MsgspecError, RecursionError, UnicodeError):
            return self.decode(value)

    def _occurred(self, e: Event, received: int, timestamp: int) -> int | Rejection:
        """When it happened, ms by our own clock; or which of the rules it breaks."""
        if (
            refusal := self._rules(e, max(received, timestamp) if e.sent_at is None else received)
        ) is not None:
            return refusal
        occurred = millis(e.occurred_at)
        if e.sent_at is None:
            return occurred
        # The client's clock cancels out: both times are read from it.
        return max(0, received - (millis(e.sent_at) - occurred))

    def shard(self, user_id: str) -> int:
        """The user's logical shard, cached: murmur2 in Python costs more than the rest of the row."""
        shard = self._shard_of.get(user_id)
        if shard is None:
            if len(self._shard_of) >= _MAX_CACHED_USERS:
                self._shard_of.clear()
            shard = self._shard_of[user_id] = shard_of(user_id, self._shards)
        return shard

    def decode(self, raw: str | bytes) -> Event | Rejection:
        """The event with unknown fields moved to `attributes`, or what is wrong with it (the rules between fields aside)."""
        size = _size(raw)
        if size > event.MAX_BYTES:
            return Rejection("too_large", f"{size} bytes, at most {event.MAX_BYTES} are taken")
        try:
            text = raw.decode() if isinstance(raw, bytes) else raw
        except UnicodeDecodeError as e:
            return Rejection("not_utf8", f"byte {e.start} is not UTF-8 text")
        try:
            # Not orjson: this one keeps integers of any size as they are.
            found = _decode_any(text)
        except (msgspec.MsgspecError, UnicodeError) as e:
            return Rejection("not_json", str(e)[:200])
        except RecursionError:
            return Rejection("not_json", "nested too deep")
        if not isinstance(found, dict):
            return Rejection("not_object", f"expected an object, got {_json_type(found)}")
        return _convert(found)

    def _rules(self, e: Event, received: int) -> Rejection | None:
        """What holds between fields; `received` (ms) is the latest time known from our own side."""
        if e.type in MONEY_TYPES:
            if e.order_id is None:
                return Rejection("missing_order_id", f"{e.type} needs order_id")
            if e.amount is None:
                return Rejection("missing_amount", f"{e.type} needs amount, in minor units")
        if e.v is not None and e.v not in event.VERSIONS:
            return Rejection("unsupported_version", f"v is {e.v}, expected one of {event.VERSIONS}")
        occurred = millis(e.occurred_at)
        if not 0 <= occurred <= event.MAX_MS:
            return _out_of_range("occurred_at")
        if e.sent_at is not None:
            sent = millis(e.sent_at)
            if not 0 <= sent <= event.MAX_MS:
                return _out_of_range("sent_at")
            occurred = received - (sent - occurred)
        if occurred > received + self._future_ms:
            return _future("occurred_at", occurred - received, self._future_ms)
        return None


def _add_extras(extras: list[tuple[Row, _Extra]]) -> list[Row]:
    """Put each extra into its row, as text; answers the rows whose extra is nested too deep for that."""
    try:
        texts: Sequence[str | None] = _encode_lines([extra for _, extra in extras]).decode().split("\n")[:-1]
    except RecursionError:
        texts = [_text(extra) for _, extra in extras]
    for (row, _), text in zip(extras, texts, strict=True):
        row[EXTRA] = text
    return [row for row, _ in extras if row[EXTRA] is None]


def _text(extra: _Extra) -> str | None:
    try:
        return _encode(extra).decode()
    except RecursionError:
        return None


def _size(raw: str | bytes) -> int:
    """Bytes of the record."""
    return len(raw) if isinstance(raw, bytes) else len(raw.encode("utf-8", "surrogatepass"))


def _out_of_range(field: str) -> Rejection:
    # RFC 3339 text can say what the same field as a number may not.
    return Rejection("bad_value", f"{field}: Expected a time from 1970 to 9999")


def _future(field: str, ahead_ms: int, most_ms: int) -> Rejection:
    return Rejection(
        "future", f"{field} is {ahead_ms // 1000} s ahead, at most {most_ms // 1000} s are taken"
    )


def _convert(found: dict[str, Any]) -> Event | Rejection:
    unknown = found.keys() - event.FIELDS
    if unknown:
        attributes = found.get("attributes")
        if attributes is not None and not isinstance(attributes, dict):
            return Rejection("wrong_type", f"attributes: expected an object, got {_json_type(attributes)}")
        found["attributes"] = {**(attributes or {}), **{name: found.pop(name) for name in sorted(unknown)}}
    try:
        return msgspec.convert(found, Event)
    except msgspec.ValidationError as e:
        return _explain(str(e))


def _explain(message: str) -> Rejection:
    """msgspec's message as a code: its wording tells a missing field, another type and a bad value apart."""
    what, _, path = message.partition(" - at `$.")
    field = path.rstrip("`")
    if "missing required field" in what:
        return Rejection(
            "missing_field", what.replace("Object missing required field", "missing required field")
        )
    wrong_type = what.startswith("Expected") and ", got `" in what
    return Rejection("wrong_type" if wrong_type else "bad_value", f"{field}: {what}" if field else what)


def _json_type(value: object) -> str:
    names = {
        dict: "an object",
        list: "an array",
        str: "text",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), "null")
