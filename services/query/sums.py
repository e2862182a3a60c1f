"""Sums of buckets with little asking: of a span that has been read within a second only its newest buckets are read again.

Late events may change any bucket, so what is remembered has the `as_of` of its reading, and an answer the oldest of its parts.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, TypeVar

from clicktide.read import buckets
from clicktide.read.plan import Read, both
from clicktide.read.spans import Counts, Span
from clicktide.settings import Settings
from services.query.health import Health
from services.query.stores import Stores

T = TypeVar("T")
FIELDS = (*buckets.EVENT_FIELDS, *buckets.GENDER_FIELDS, "gmv", "refunds")
FRESH_MS = 1000
_SETTLED_MS = 3000
_REMEMBERED = 64
AsOf = int | None


class _Kept(NamedTuple):
    """Buckets in [start, end) s, read at `at` (ms)."""

    at: int
    as_of: AsOf
    start: int
    end: int
    found: dict[int, Counts]


class Sums:
    """`now_ms` is the wall clock (ms)."""

    def __init__(self, settings: Settings, stores: Stores, health: Health, now_ms: Callable[[], int]) -> None:
        self._stores, self._health, self._now_ms = stores, health, now_ms
        self._namespace = settings.text("redis.namespace")
        self._shards = settings.integer("shards.count")
        self._series: dict[str, _Kept] = {}
        self._values: dict[Hashable, tuple[int, AsOf, Any]] = {}

    async def series(self, span: Span, *, whole: bool) -> tuple[AsOf, dict[int, Counts], Counts | None]:
        """As of when, `FIELDS` of the span's buckets, and with `whole` their totals of all time."""
        now, as_of = self._now_ms(), await self._health.as_of()
        kept = self._series.get(span.granularity)
        if kept is not None and not (
            0 <= now - kept.at < FRESH_MS and kept.start <= span.start < kept.end < span.end
        ):
            kept = None
        start = span.start if kept is None else kept.end
        rest = Span(span.granularity, start, (span.end - start) // span.step)
        series = buckets.series(self._namespace, self._shards, rest, FIELDS)
        of_all = buckets.totals(self._namespace, self._shards, FIELDS) if whole else Read([], _nothing)
        found, totals = await self._stores.redis(both(series, of_all))
        if kept is None:
            settled = (now - _SETTLED_MS) // 1000 // span.step * span.step
            self._series[span.granularity] = _Kept(now, as_of, span.start, min(settled, span.end), found)
            return as_of, found, totals
        return older(as_of, kept.as_of), {**kept.found, **found}, totals

    async def value(self, key: Hashable, read: Read[T]) -> tuple[AsOf, T]:
        """As of when, and the read's answer, at most a second old. `key` stands for the question."""
        now = self._now_ms()
        old = self._values.get(key)
        if old is not None and 0 <= now - old[0] < FRESH_MS:
            return old[1], old[2]
        as_of = await self._health.as_of()
        found = await self._stores.redis(read)
        if len(self._values) >= _REMEMBERED:
            self._values.clear()
        self._values[key] = (now, as_of, found)
        return as_of, found


def _nothing(_: list[Any]) -> Counts | None:
    return None


def older(first: AsOf, second: AsOf) -> AsOf:
    return None if first is None or second is None else min(first, second)
