"""Turns rows of user_log.csv and UserBehavior.csv into events.

Everything but the time is a pure function of the file's content, the row's number and the run's label, so that
replaying a file again gives the same event ids. The mapping is documented in docs/traffic.md.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import orjson

from bench.truth import GOOD, Record
from bench.user_files import BEHAVIORS, USER_LOG, Problem, Row, Source, rows, short_digest

LOWEST_PRICE, HIGHEST_PRICE = 100, 999_900  # minor units: 1.00 and 9999.00
_ACTIONS = {"0": "click", "1": "cart", "2": "pay", "3": "favorite"}
_GENDERS = {"0": "female", "1": "male", "2": "unknown", "": "unknown", "null": "unknown"}
_BEHAVIOR_TYPES = dict(zip(BEHAVIORS, ("view", "pay", "cart", "favorite"), strict=True))
_MAX_ID = 64  # characters
_DAY_MS = 86_400_000
_LATEST_S = 4_102_444_800  # 2100-01-01: a later time is a mistake in the file


class Dating(NamedTuple):
    """Where occurred_at comes from: the time of sending (`year` and `own` unset), or the file."""

    year: int | None = None
    own: bool = False  # UserBehavior's own seconds


AS_SENT = Dating()


class Replayed(NamedTuple):
    """An event of a row; `event` lacks occurred_at, which is `file_ms` or the time of sending."""

    number: int
    event: dict[str, Any]
    file_ms: int | None  # the file's time of the row, where it has one

    def record(self, at: int, occurred_at: int) -> Record:
        """The record to send at `at` (ms)."""
        event = {**self.event, "occurred_at": occurred_at}
        return Record(GOOD, event["user_id"], orjson.dumps(event), at)


@functools.lru_cache(maxsize=65536)
def price(item_id: str) -> int:
    """The price of an item in minor units, 100..999900: a skewed hash of its id.

    x = the first 20 bits of blake2b(item_id, digest_size=8) over 2^20; price = 100 + floor(999800 * x^6), so that
    half of the items cost less than 157.
    """
    x = int.from_bytes(hashlib.blake2b(item_id.encode(), digest_size=8).digest(), "big") >> 44
    return LOWEST_PRICE + (HIGHEST_PRICE - LOWEST_PRICE) * x**6 // (1 << 20) ** 6


def id_prefix(source: Source, label: str) -> str:
    """The common first part of the event ids of a file and a label: `r` and 11 characters."""
    return "r" + short_digest(source.digest, label.encode())


def event_id(prefix: str, number: int) -> str:
    """At most 24 characters, safe in a URL, for up to 10^11 rows."""
    return f"{prefix}-{number}"


def events(source: Source, label: str = "", dating: Dating = AS_SENT) -> Iterator[Replayed | Problem]:
    """Every row as an event, or as a problem with its number and reason, in the order of the file."""
    prefix = id_prefix(source, label)
    convert = _from_user_log if source.format == USER_LOG else _from_user_behavior
    for row in rows(source):
        if isinstance(row, Problem):
            yield row
            continue
        made = convert(row, dating)
        if isinstance(made, str):
            yield Problem(row.number, made)
            continue
        event, file_ms = made
        event["event_id"] = event_id(prefix, row.number)
        if event["type"] == "pay":
            event["order_id"] = "o" + event["event_id"]
            event["amount"] = price(event["item_id"])
        yield Replayed(row.number, event, file_ms)


_Made = tuple[dict[str, Any], int | None] | str


def _from_user_log(row: Row, dating: Dating) -> _Made:
    user, item, category, merchant, brand, month, day, action, age_range, gender, province = row.fields
    event_type = _ACTIONS.get(action)
    if event_type is None:
        return f"action {action!r:.40}, expected 0, 1, 2 or 3"
    sex = _GENDERS.get(gender.lower())
    if sex is None:
        return f"gender {gender!r:.40}, expected 0, 1, 2 or nothing"
    event = {"type": event_type, "user_id": user, "gender": sex}
    ids = {"item_id": item, "category_id": category, "merchant_id": merchant, "brand_id": brand}
    problem = _put_ids(event, ids)
    if problem:
        return problem
    if age_range.lower() not in ("", "0", "null"):
        event["age_range"] = age_range
    if province:
        event["province"] = province
    if dating.year is None:
        return event, None
    return _dated(event, dating.year, month, day, row.number)


def _dated(event: dict[str, Any], year: int, month: str, day: str, number: int) -> _Made:
    """The row's day in UTC, plus a millisecond for each row, which keeps the file's order within a day."""
    try:
        date = dt.datetime(year, int(month), int(day), tzinfo=dt.UTC)
    except ValueError:
        return f"month {month!r:.20} and day {day!r:.20} are no date of {year}"
    return event, int(date.timestamp()) * 1000 + number % _DAY_MS


def _from_user_behavior(row: Row, dating: Dating) -> _Made:
    user, item, category, behavior, seconds = row.fields
    event_type = _BEHAVIOR_TYPES.get(behavior.lower())
    if event_type is None:
        return f"behavior {behavior!r:.40}, expected pv, buy, cart or fav"
    event = {"type": event_type, "user_id": user}
    problem = _put_ids(event, {"item_id": item, "category_id": category})
    if problem:
        return problem
    if seconds.isascii() and seconds.isdigit() and int(seconds[:12]) < _LATEST_S:
        return event, int(seconds) * 1000
    if dating.own:
        return f"time {seconds!r:.40}, expected seconds since 1970"
    return event, None


def _put_ids(event: dict[str, str], ids: dict[str, str]) -> str | None:
    """Put the ids that are there into `event`; what is wrong with them otherwise."""
    if not 1 <= len(event["user_id"]) <= _MAX_ID:
        return f"user_id of {len(event['user_id'])} characters, expected 1 to {_MAX_ID}"
    if not ids["item_id"]:
        return "item_id missing"
    for name, value in ids.items():
        if len(value) > _MAX_ID:
            return f"{name} of {len(value)} characters, expected at most {_MAX_ID}"
        if value:
            event[name] = value
    return None


def pace(file_ms: Callable[[Replayed], int | None], speed: float) -> Callable[[Replayed], float]:
    """Seconds after the start at which a row is due, for a file replayed `speed` times as fast as it happened.

    A row older than the ones before it, or without a time, is due at once: files are not always in order of time.
    """
    first: int | None = None
    latest = 0

    def due(row: Replayed) -> float:
        nonlocal first, latest
        ms = file_ms(row)
        if ms is not None:
            first = ms if first is None else first
            latest = max(latest, ms - first)
        return latest / 1000 / speed

    return due
