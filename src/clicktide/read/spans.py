"""Spans: which buckets answer for a range of time, dense series, and sliding windows over them.

Pure. A span is made of whole buckets: its ends are widened to the granularity, and answers say the widened ends, so
that every sum is exact for the range it names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from clicktide.keys import GRANULARITIES
from clicktide.settings import Settings

# A read costs Redis one HMGET a bucket and shard: 300 x 64 are about 20 ms of its time.
MAX_BUCKETS = 300
Counts = dict[str, int]


class Span(NamedTuple):
    """`size` buckets of `granularity` from `start` (s since the epoch, a multiple of the step)."""

    granularity: str
    start: int
    size: int

    @property
    def step(self) -> int:
        """Seconds a bucket."""
        return GRANULARITIES[self.granularity]

    @property
    def end(self) -> int:
        """The first second after the span."""
        return self.start + self.size * self.step

    @property
    def starts(self) -> range:
        return range(self.start, self.end, self.step)


def kept(settings: Settings) -> dict[str, int]:
    """For how many seconds the buckets of each granularity are kept, finest first."""
    names = {"s": "second", "m": "minute", "h": "hour", "d": "day"}
    return {g: int(settings.number(f"buckets.{names[g]}_ttl_h") * 3600) for g in GRANULARITIES}


def covering(granularity: str, from_ms: int, to_ms: int) -> Span:
    """The whole buckets that hold [from_ms, to_ms)."""
    step = GRANULARITIES[granularity]
    start = from_ms // 1000 // step * step
    end = -(-to_ms // 1000)
    return Span(granularity, start, max(1, -(-(end - start) // step)))


def newest(granularity: str, seconds: int, now_ms: int) -> Span:
    """The buckets of the last `seconds`, a multiple of the step; the last one is the one that runs."""
    step = GRANULARITIES[granularity]
    end = now_ms // 1000 // step * step + step
    return Span(granularity, end - seconds, seconds // step)


def choose(
    from_ms: int,
    to_ms: int,
    now_ms: int,
    keeps: Mapping[str, int],
    finest: str = "s",
    max_buckets: int = MAX_BUCKETS,
) -> Span:
    """The span of the finest granularity, not under `finest`, that is still kept at `from_ms` and takes at most
    `max_buckets`; days, cut to what is kept, where none does. `keeps`: as `kept` gives it."""
    order = list(GRANULARITIES)
    for granularity in order[order.index(finest) :]:
        span = covering(granularity, from_ms, to_ms)
        if span.size <= max_buckets and span.start * 1000 >= now_ms - keeps[granularity] * 1000:
            return span
    span = covering("d", max(from_ms, now_ms - keeps["d"] * 1000), to_ms)
    if span.size > max_buckets:
        span = Span("d", span.end - max_buckets * span.step, max_buckets)
    return span


def dense(span: Span, found: Mapping[int, Mapping[str, int]], names: Sequence[str]) -> list[Counts]:
    """One point a bucket, zeros where nothing happened: `at` (ms) and every one of `names`."""
    nothing: Mapping[str, int] = {}
    return [
        {"at": start * 1000, **{n: found.get(start, nothing).get(n, 0) for n in names}}
        for start in span.starts
    ]


def slid(points: Sequence[Counts], step: int, window: int, slide: int, names: Sequence[str]) -> list[Counts]:
    """Sliding windows over dense points: one point each `slide` s, the sum of the `window` s from its `at` on.

    `window` and `slide` are multiples of `step` (s a point); windows begin at multiples of `slide`; only windows that
    lie inside `points` appear.
    """
    width, out = window // step, []
    for i, point in enumerate(points[: len(points) - width + 1]):
        if point["at"] // 1000 % slide == 0:
            inside = points[i : i + width]
            out.append({"at": point["at"], **{n: sum(p[n] for p in inside) for n in names}})
    return out


def total(points: Sequence[Counts], names: Sequence[str]) -> Counts:
    return {n: sum(p[n] for p in points) for n in names}
