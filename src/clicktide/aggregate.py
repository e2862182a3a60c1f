"""Aggregate: what a set of events does in Redis, summed before it is written.

Pure: the same rows give the same effects. Sums are per bucket of event time, so they commute: order and slicing
do not matter. Field and key names are those of `keys`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import orjson

from clicktide.row import (
    AMOUNT,
    CATEGORY_ID,
    EXTRA,
    GENDER,
    GENDERS,
    OCCURRED_AT,
    PROVINCE,
    RECEIVED_AT,
    TYPE,
    TYPES,
    USER_ID,
    Row,
)

Counts = dict[str, int]
TIMELINE_COLUMNS = EXTRA + 1

_TYPE_FIELD = {t: f"n:{t}" for t in TYPES}
_GENDER_FIELD = {g: f"g:{g}" for g in GENDERS}


@dataclass(slots=True)
class Effects:
    """What one shard's events do. `seconds` and `minutes` map a bucket's start (s) to its fields; `minutes` holds only
    what the seconds do not (categories, provinces). `late` events count nowhere else but in the timelines."""

    seconds: dict[int, Counts] = field(default_factory=dict)
    minutes: dict[int, Counts] = field(default_factory=dict)
    timelines: dict[str, list[str]] = field(default_factory=dict)
    visitors: dict[int, set[str]] = field(default_factory=dict)
    payers: dict[int, set[str]] = field(default_factory=dict)
    late: int = 0


def is_late(row: Row, late_after_ms: int) -> bool:
    """Whether the event was so old when it came that it is stored but not counted (no clock is read: a replay
    decides alike)."""
    received: int = row[RECEIVED_AT]
    occurred: int = row[OCCURRED_AT]
    return received - occurred > late_after_ms


def effects(rows: Iterable[Row], late_after_ms: int) -> Effects:
    """The effects of the rows of one shard."""
    out = Effects()
    seconds, minutes, timelines = out.seconds, out.minutes, out.timelines
    for row in rows:
        user = row[USER_ID]
        occurred = row[OCCURRED_AT]
        line = timelines.get(user)
        if line is None:
            line = timelines[user] = []
        line += (str(occurred), orjson.dumps(row[:TIMELINE_COLUMNS]).decode())
        if row[RECEIVED_AT] - occurred > late_after_ms:
            out.late += 1
            continue
        second = occurred // 1000
        counts = seconds.get(second)
        if counts is None:
            counts = seconds[second] = {}
        name = _TYPE_FIELD[row[TYPE]]
        counts[name] = counts.get(name, 0) + 1
        name = _GENDER_FIELD[row[GENDER]]
        counts[name] = counts.get(name, 0) + 1
        minute = second - second % 60
        counts_m = minutes.get(minute)
        if counts_m is None:
            counts_m = minutes[minute] = {}
        name = "p:" + (row[PROVINCE] or "")
        counts_m[name] = counts_m.get(name, 0) + 1
        hour = second - second % 3600
        out.visitors.setdefault(hour, set()).add(user)
        kind = row[TYPE]
        if kind == "pay":
            counts["gmv"] = counts.get("gmv", 0) + row[AMOUNT]
            name = "c:" + (row[CATEGORY_ID] or "")
            counts_m[name] = counts_m.get(name, 0) + row[AMOUNT]
            out.payers.setdefault(hour, set()).add(user)
        elif kind == "refund":
            counts["refunds"] = counts.get("refunds", 0) + row[AMOUNT]
    return out


def buckets(found: Effects) -> dict[str, dict[int, Counts]]:
    """The effects' sums by granularity (`s`, `m`, `h`, `d`) and start; `a` with the one start 0 is all time."""
    out: dict[str, dict[int, Counts]] = {"s": found.seconds, "m": {}, "h": {}, "d": {}, "a": {}}
    for start, counts in found.seconds.items():
        _add(out["m"].setdefault(start - start % 60, {}), counts)
    for start, counts in found.minutes.items():
        _add(out["m"].setdefault(start, {}), counts)
    for start, counts in out["m"].items():
        _add(out["h"].setdefault(start - start % 3600, {}), counts)
    for start, counts in out["h"].items():
        _add(out["d"].setdefault(start - start % 86400, {}), counts)
    for counts in out["d"].values():
        _add(out["a"].setdefault(0, {}), counts)
    if found.late:
        _add(out["a"].setdefault(0, {}), {"late": found.late})
    return out


def _add(into: Counts, counts: Mapping[str, int]) -> None:
    for name, n in counts.items():
        into[name] = into.get(name, 0) + n
