"""Ranges of time as callers ask for them: `window`, `slide`, `from` and `to`, turned into spans of buckets.

Pure; what cannot be understood is a `bad_parameter` problem with the parameter's name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from clicktide.keys import GRANULARITIES
from clicktide.read.spans import MAX_BUCKETS, Span, choose, covering
from services.problems import ProblemError

_DURATION = re.compile(r"(\d{1,9})(s|m|h|d)")
_MAX_MS = 253_402_300_799_999
_Time = Annotated[str, Meta(description="RFC 3339 time, or milliseconds since the epoch.")]


class RangeQuery(msgspec.Struct, forbid_unknown_fields=True, rename={"from_": "from"}):
    """Without any of these, totals are of all that is kept."""

    window: (
        Annotated[
            str, Meta(description="The last so much time, up to `to`: a number and s, m, h or d, as in 10m.")
        ]
        | None
    ) = None
    slide: (
        Annotated[
            str, Meta(description="With `window`: one point each so much time, each the sum of a window.")
        ]
        | None
    ) = None
    from_: _Time | None = None
    to: _Time | None = None


class Asked(NamedTuple):
    """`span` is what to read; `window` and `slide` (s) are set for sliding windows. `whole`: no range was asked
    for, totals are of all time and `span` is just the recent series."""

    span: Span
    whole: bool
    window: int | None = None
    slide: int | None = None

    @property
    def range_ms(self) -> tuple[int, int] | None:
        """What the totals cover (ms), None for all time: with sliding windows, the newest one."""
        if self.whole:
            return None
        start = self.span.start if self.window is None else self.span.end - self.window
        return start * 1000, self.span.end * 1000


def asked(query: RangeQuery, now_ms: int, keeps: Mapping[str, int], finest: str, recent: Span) -> Asked:
    """What the caller wants. `finest` is the finest granularity that has the fields; `recent` the span of the series
    where no range is given. Raises `bad_parameter` problems."""
    window = None if query.window is None else duration("window", query.window)
    slide = None if query.slide is None else duration("slide", query.slide)
    start = None if query.from_ is None else moment("from", query.from_)
    end = None if query.to is None else moment("to", query.to)
    if slide is not None:
        return _sliding(window, slide, start, now_ms if end is None else end, now_ms, keeps, finest)
    if window is None and start is None and end is None:
        return Asked(recent, whole=True)
    if window is not None and start is not None:
        raise ProblemError("bad_parameter", "from: expected `window` or `from`, not both", parameter="from")
    end = now_ms if end is None else end
    if window is not None:
        return Asked(_last(window, end, now_ms, keeps, finest), whole=False)
    start = max(0, end - keeps["d"] * 1000) if start is None else start
    if start >= end:
        raise ProblemError("bad_parameter", "from: expected a time before `to`", parameter="from")
    return Asked(choose(start, end, now_ms, keeps, finest), whole=False)


def duration(name: str, text: str) -> int:
    """Seconds of `10m` and the like."""
    found = _DURATION.fullmatch(text)
    seconds = int(found[1]) * GRANULARITIES[found[2]] if found else 0
    if not 1 <= seconds <= 3650 * 86400:
        raise ProblemError(
            "bad_parameter", f"{name}: expected a number and s, m, h or d, as in 10m", parameter=name
        )
    return seconds


def moment(name: str, text: str) -> int:
    """Milliseconds since the epoch of an RFC 3339 time or a number."""
    if text.isascii() and text.isdecimal() and len(text) <= 15 and int(text) <= _MAX_MS:
        return int(text)
    try:
        # In a query `+` means a blank, and few clients escape it.
        at = datetime.fromisoformat(text.replace(" ", "+"))
        if at.tzinfo is None:
            raise ValueError(text)
        return max(0, int(at.timestamp() * 1000))
    except (ValueError, OverflowError):
        raise ProblemError(
            "bad_parameter",
            f"{name}: expected an RFC 3339 time with its offset, or milliseconds since the epoch",
            parameter=name,
        ) from None


def _last(window: int, end_ms: int, now_ms: int, keeps: Mapping[str, int], finest: str) -> Span:
    # The last bucket is the one that `to` lies in; counting back from its end keeps the window's length exact.
    order = list(GRANULARITIES)
    for granularity in order[order.index(finest) :]:
        step = GRANULARITIES[granularity]
        end = -(-end_ms // 1000 // step) * step
        count = -(-window // step)
        start = end - count * step
        if count <= MAX_BUCKETS and start * 1000 >= now_ms - keeps[granularity] * 1000 and start >= 0:
            return Span(granularity, start, count)
    return choose(max(0, end_ms - window * 1000), end_ms, now_ms, keeps, "d")


def _sliding(
    window: int | None,
    slide: int,
    start_ms: int | None,
    end_ms: int,
    now_ms: int,
    keeps: Mapping[str, int],
    finest: str,
) -> Asked:
    if window is None:
        raise ProblemError("bad_parameter", "slide: expected together with `window`", parameter="slide")
    if window % slide:
        raise ProblemError("bad_parameter", "slide: expected a divisor of `window`", parameter="slide")
    end = -(-end_ms // 1000 // slide) * slide
    # As many windows as cover one window's length, so that `window=10m&slide=2m` has five.
    first = end - 2 * window + slide if start_ms is None else start_ms // 1000 // slide * slide
    if first > end - window:
        raise ProblemError(
            "bad_parameter", "from: expected at least one `window` before `to`", parameter="from"
        )
    order = list(GRANULARITIES)
    for granularity in order[order.index(finest) :]:
        step = GRANULARITIES[granularity]
        span = covering(granularity, max(0, first) * 1000, end * 1000)
        fits = slide % step == 0 and span.size <= MAX_BUCKETS
        if fits and span.start * 1000 >= now_ms - keeps[granularity] * 1000:
            return Asked(span, whole=False, window=window, slide=slide)
    raise ProblemError(
        "bad_parameter",
        f"slide: no buckets fit: expected at most {MAX_BUCKETS} of a kind that is kept so long and divides `slide`",
        parameter="slide",
    )
