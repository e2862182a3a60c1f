"""The snapshot: what the live page shows of the buckets at one moment, read by as few commands as that takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from clicktide.read import buckets
from clicktide.read.plan import Read, both
from clicktide.read.spans import Counts, Span, dense
from clicktide.row import GENDERS, TYPES

SERIES_S = 60
TOP = 10
_SERIES_FIELDS = (*buckets.EVENT_FIELDS, *buckets.GENDER_FIELDS, "gmv")


# The largest names with their sums, and the sum of all others. (Plain tuples: they go out as JSON.)
Ranking = tuple[list[tuple[str, int]], int]


class Slow(NamedTuple):
    """What costs more to read than a second's worth, so is read less often."""

    categories: Ranking
    provinces: Ranking
    uv: int
    payers: int


def fast(namespace: str, shards: int, now_s: int) -> Read[dict[str, Any]]:
    """Totals and the last minute by seconds."""
    span = Span("s", now_s - SERIES_S + 1, SERIES_S)
    read = both(
        buckets.totals(namespace, shards),
        buckets.series(namespace, shards, span, _SERIES_FIELDS),
    )

    def fold(replies: list[Any]) -> dict[str, Any]:
        totals, found = read.fold(replies)
        return {**named(totals), "series": [_point(p) for p in dense(span, found, _SERIES_FIELDS)]}

    return Read(read.commands, fold)


def slow(namespace: str, shards: int) -> Read[Slow]:
    """Rankings and distinct users of all time."""
    ranks = both(buckets.sums(namespace, shards, None, "c:"), buckets.sums(namespace, shards, None, "p:"))
    users = both(
        buckets.distinct(namespace, shards, "v", None), buckets.distinct(namespace, shards, "y", None)
    )
    read = both(ranks, users)

    def fold(replies: list[Any]) -> Slow:
        (categories, provinces), (uv, payers) = read.fold(replies)
        return Slow(ranked(categories), ranked(provinces), uv, payers)

    return Read(read.commands, fold)


def ranked(sums: Mapping[str, int]) -> Ranking:
    """`sums` with the largest first."""
    pairs = list(sums.items())
    return pairs[:TOP], sum(n for _, n in pairs[TOP:])


def named(totals: Counts) -> dict[str, Any]:
    """Totals by the names callers see."""
    return {
        "events": {t: totals[f"n:{t}"] for t in TYPES},
        "genders": {g: totals[f"g:{g}"] for g in GENDERS},
        "gmv": totals["gmv"],
        "refunds": totals["refunds"],
        "late": totals["late"],
    }


def _point(p: Counts) -> dict[str, int]:
    return {
        "at": p["at"],
        "events": sum(p[f] for f in buckets.EVENT_FIELDS),
        "gmv": p["gmv"],
        **{g: p[f"g:{g}"] for g in GENDERS},
    }
