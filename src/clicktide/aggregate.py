"""Aggregate: what a set of events does in Redis, summed before it is written.

Pure: the same rows give the same effects. Sums are per bucket of event time, so they commute: order and slicing
do not matter. Field and key names are those of `keys`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clicktide.member import members
from clicktide.row import (
    AMOUNT,
    CATEGORY_ID,
    GENDER,
    OCCURRED_AT,
    PROVINCE,
    RECEIVED_AT,
    TYPE,
    USER_ID,
    Row,
)

Counts = dict[str, int]


@dataclass(slots=True)
class Effects:
    """What one shard's events do. `seconds` and `minutes` map a bucket's start (s) to its fields; `minutes` holds only
    what the seconds do not (categories, provinces). `timelines` maps a user to pairs of score (text) and member (`clicktide.member`).
    `late` events count nowhere else but in the timelines."""

    seconds: dict[int, Counts] = field(default_factory=dict)
    minutes: dict[int, Counts] = field(default_factory=dict)
    timelines: dict[str, list[Any]] = field(default_factory=dict)
    visitors: dict[int, set[str]] = field(default_factory=dict)
    payers: dict[int, set[str]] = field(default_factory=dict)
    late: int = 0


def is_late(row: Row, late_after_ms: int) -> bool:
    """Whether the event was so old when it came that it is stored but not counted (no clock is read: a replay
    decides alike)."""
    received: int = row[RECEIVED_AT]
    occurred: int = row[OCCURRED_AT]
    return received - occurred > late_after_ms


def effects(rows: Sequence[Row], late_after_ms: int) -> Effects:
    """The effects of the rows of one shard."""
    out = Effects()
    timelines = out.timelines
    by_second: dict[int, list[Row]] = {}
    for row, member in zip(rows, members(rows), strict=True):
        user = row[USER_ID]
        occurred = row[OCCURRED_AT]
        line = timelines.get(user)
        if line is None:
            line = timelines[user] = []
        line += (str(occurred), member)
        if row[RECEIVED_AT] - occurred > late_after_ms:
            out.late += 1
            continue
        second = occurred // 1000
        counted = by_second.get(second)
        if counted is None:
            by_second[second] = [row]
        else:
            counted.append(row)
    for second, counted in by_second.items():
        _count(out, second, counted)
    return out


def _count(out: Effects, second: int, rows: list[Row]) -> None:
    """Add what rows of one second do to the sums: a second's, and so a slice's, are many for each name that is counted."""
    types: Counts = defaultdict(int)
    genders: Counts = defaultdict(int)
    provinces: dict[str | None, int] = defaultdict(int)
    for row in rows:
        types[row[TYPE]] += 1
        genders[row[GENDER]] += 1
        provinces[row[PROVINCE]] += 1
    counts = out.seconds[second] = {f"n:{kind}": n for kind, n in types.items()}
    counts.update({f"g:{gender}": n for gender, n in genders.items()})
    minute = out.minutes.setdefault(second - second % 60, {})
    # Not known and empty are one name.
    for province, n in provinces.items():
        name = f"p:{province or ''}"
        minute[name] = minute.get(name, 0) + n
    hour = second - second % 3600
    out.visitors.setdefault(hour, set()).update([row[USER_ID] for row in rows])
    if "pay" in types:
        pays = [row for row in rows if row[TYPE] == "pay"]
        counts["gmv"] = sum([row[AMOUNT] for row in pays])
        for row in pays:
            name = f"c:{row[CATEGORY_ID] or ''}"
            minute[name] = minute.get(name, 0) + row[AMOUNT]
        out.payers.setdefault(hour, set()).update([row[USER_ID] for row in pays])
    if "refund" in types:
        counts["refunds"] = sum([row[AMOUNT] for row in rows if row[TYPE] == "refund"])


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
