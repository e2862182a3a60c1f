"""The metrics: `/v1/metrics/*`, all from the buckets, all in one shape.

A range is answered from whole buckets of the finest granularity that fits and is kept; `from` and `to` of the answer say which
time they cover. Without a range the totals are of all that is kept, and the series is the last minute by seconds
(categories and provinces: the last hour by minutes; distinct users: the last day by hours).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Literal, NamedTuple

from msgspec import Meta, structs
from starlette.requests import Request
from starlette.responses import Response

from clicktide.errors import StoreError
from clicktide.read import buckets
from clicktide.read.plan import Read, both
from clicktide.read.spans import Counts, Span, covering, dense, kept, newest, slid, total
from clicktide.settings import Settings
from services.operations import parameters
from services.problems import ProblemError
from services.query.caching import tag_of, tagged
from services.query.health import Health
from services.query.ranges import Asked, RangeQuery, asked
from services.query.stores import Stores
from services.query.sums import AsOf, Sums, older

_REMEMBERED = 256
Found = tuple[AsOf, dict[str, Any]]
Make = Callable[[], Coroutine[Any, Any, Found]]
FUNNEL_STEPS = ("view", "click", "cart", "order", "pay")


class Measure(NamedTuple):
    """One metric of fixed fields: a bucket's field -> the name callers see."""

    names: dict[str, str]

    def named(self, counts: Counts) -> Counts:
        out = {name: counts.get(field, 0) for field, name in self.names.items()}
        if "refunds" in out:
            out["net"] = out["gmv"] - out["refunds"]
        return out


EVENTS = Measure({f: f.removeprefix("n:") for f in buckets.EVENT_FIELDS})
GENDERS = Measure({f: f.removeprefix("g:") for f in buckets.GENDER_FIELDS})
FUNNEL = Measure({f"n:{step}": step for step in FUNNEL_STEPS})
GMV = Measure({"gmv": "gmv", "refunds": "refunds", "n:pay": "pays", "n:order": "orders"})


class Answered(NamedTuple):
    """An answer, when it was read (ms), its tag, and whether its figures are final."""

    at: int
    body: dict[str, Any]
    tag: str
    closed: bool


class RankedQuery(RangeQuery):
    limit: Annotated[int, Meta(ge=1, le=10_000, description="Names in the totals, the largest first.")] = (
        10_000
    )
    top: Annotated[int, Meta(ge=0, le=50, description="Names in the series, the largest first.")] = 10


class MetricsApi:
    """`now_ms` is the wall clock (ms)."""

    def __init__(self, settings: Settings, stores: Stores, health: Health, now_ms: Callable[[], int]) -> None:
        self._stores, self._health, self._now_ms = stores, health, now_ms
        self._namespace = settings.text("redis.namespace")
        self._shards = settings.integer("shards.count")
        self._keeps = kept(settings)
        self._share_ms = settings.integer("http.share_ms")
        # What happened so long ago is late when it comes, and not counted.
        self._final_ms = int(settings.number("events.late_after_h") * 3_600_000)
        self._sums = Sums(settings, stores, health, now_ms)
        self._good: OrderedDict[Any, Answered] = OrderedDict()
        self._reading: dict[Any, asyncio.Task[Answered]] = {}

    async def events(self, request: Request) -> Response:
        return await self._measured(request, "events", EVENTS)

    async def genders(self, request: Request) -> Response:
        return await self._measured(request, "genders", GENDERS)

    async def gmv(self, request: Request) -> Response:
        return await self._measured(request, "gmv", GMV)

    async def funnel(self, request: Request) -> Response:
        return await self._measured(request, "funnel", FUNNEL)

    async def categories(self, request: Request) -> Response:
        return await self._ranked(request, "c:")

    async def provinces(self, request: Request) -> Response:
        return await self._ranked(request, "p:")

    async def uv(self, request: Request) -> Response:
        query = parameters(request, RangeQuery)
        if query.slide is not None:
            raise ProblemError(
                "bad_parameter", "slide: not for distinct users: they do not add up", parameter="slide"
            )
        want = self._asked(query, "h", 86400)

        async def make() -> Found:
            whole = None if want.whole else want.span
            totals = both(self._distinct("v", whole), self._distinct("y", whole))
            hours = both(
                buckets.distinct_series(self._namespace, self._shards, "v", want.span),
                buckets.distinct_series(self._namespace, self._shards, "y", want.span),
            )
            as_of, found = await self._sums.value(("uv", want.whole, want.span), both(totals, hours))
            (uv, payers), (seen, paid) = found
            series = [{"at": s * 1000, "uv": seen[s], "payers": paid[s]} for s in want.span.starts]
            return as_of, _body(want, {"uv": uv, "payers": payers}, series, approximate=["uv", "payers"])

        return await self._answer(request, ("uv", *structs.astuple(query)), make)

    async def _measured(self, request: Request, name: str, measure: Measure) -> Response:
        query = parameters(request, RangeQuery)
        want = self._asked(query, "s", 60)

        async def make() -> Found:
            as_of, body = await self._measure(want, measure)
            if measure is GMV:
                # Distinct users are kept by hours and days: for a finer range they are those of the hours it touches.
                hours = self._hours(want)
                paid_of, paid = await self._sums.value(("payers", hours), self._distinct("y", hours))
                body["totals"]["payers"] = paid
                body["approximate"].append("payers")
                as_of = older(as_of, paid_of)
            elif measure is FUNNEL:
                body["steps"] = funnel_steps(body["totals"])
            return as_of, body

        return await self._answer(request, (name, *structs.astuple(query)), make)

    async def _measure(self, want: Asked, measure: Measure) -> Found:
        fields = tuple(measure.names)
        as_of, found, all_time = await self._sums.series(want.span, whole=want.whole)
        points = dense(want.span, found, fields)
        if want.window is not None and want.slide is not None:
            points = slid(points, want.span.step, want.window, want.slide, fields)
            totals = {f: points[-1][f] for f in fields}
        else:
            totals = total(points, fields) if all_time is None else all_time
        series = [{"at": p["at"], **measure.named(p)} for p in points]
        return as_of, _body(want, measure.named(totals), series)

    async def _ranked(self, request: Request, prefix: Literal["c:", "p:"]) -> Response:
        query = parameters(request, RankedQuery)
        want = self._asked(query, "m", 3600)

        async def make() -> Found:
            as_of = await self._health.as_of()
            over = None if want.whole else want.span
            if want.window is not None:
                over = covering(want.span.granularity, *(want.range_ms or (0, 0)))
            sums = await self._stores.redis(buckets.sums(self._namespace, self._shards, over, prefix))
            names = list(sums)
            fields = [prefix + name for name in names[: query.top]]
            points = [{"at": start * 1000} for start in want.span.starts]
            if fields:
                found = await self._stores.redis(
                    buckets.series(self._namespace, self._shards, want.span, fields)
                )
                points = dense(want.span, found, fields)
            if want.window is not None and want.slide is not None:
                points = slid(points, want.span.step, want.window, want.slide, fields)
            # A category may be called `at`: the time goes last.
            series = [{**{k.removeprefix(prefix): v for k, v in p.items()}, "at": p["at"]} for p in points]
            body = _body(want, {n: sums[n] for n in names[: query.limit]}, series)
            return as_of, {**body, "omitted": max(0, len(names) - query.limit)}

        return await self._answer(request, (prefix, *structs.astuple(query)), make)

    def _asked(self, query: RangeQuery, finest: str, recent_s: int) -> Asked:
        now_ms = self._now_ms()
        recent = newest(finest, recent_s, now_ms)
        return asked(query, now_ms, self._keeps, finest, recent)

    def _hours(self, want: Asked) -> Span | None:
        covered = want.range_ms
        if covered is None:
            return None
        return covering("h" if covered[1] - covered[0] <= 200 * 3_600_000 else "d", *covered)

    def _distinct(self, which: Literal["v", "y"], span: Span | None) -> Read[int]:
        return buckets.distinct(self._namespace, self._shards, which, span)

    async def _answer(self, request: Request, key: Any, make: Make) -> Response:
        """What `make` finds; with Redis away, the last answer to the same question, as old as it says; else 503."""
        found = self._good.get(key)
        if found is None or not 0 <= self._now_ms() - found.at < self._share_ms:
            reading = self._reading.get(key)
            if reading is None:
                reading = self._reading[key] = asyncio.get_running_loop().create_task(self._read(key, make))
            try:
                # Others may wait for it too: one caller who leaves must not end it.
                found = await asyncio.shield(reading)
            except StoreError as e:
                if found is None:
                    raise ProblemError("store_unavailable", str(e), retry_after=1, degraded=[e.store]) from e
        body = {**found.body, "degraded": self._health.degraded()}
        return tagged(request, body, found.tag, closed=found.closed)

    async def _read(self, key: Any, make: Make) -> Answered:
        at = self._now_ms()
        try:
            as_of, figures = await make()
        finally:
            del self._reading[key]
        body = {"as_of": as_of, **figures}
        found = self._good[key] = Answered(at, body, tag_of(body), self._is_closed(as_of, body["to"]))
        self._good.move_to_end(key)
        if len(self._good) > _REMEMBERED:
            self._good.popitem(last=False)
        return found

    def _is_closed(self, as_of: AsOf, to: int | None) -> bool:
        return as_of is not None and to is not None and to + self._final_ms < as_of


def funnel_steps(totals: Counts) -> list[dict[str, Any]]:
    """Each step's events, and what share of the first and of the previous step's they are."""
    events = [totals[step] for step in FUNNEL_STEPS]
    return [
        {
            "step": step,
            "events": n,
            "of_first": round(n / events[0], 4) if events[0] else None,
            "of_previous": round(n / before, 4) if before else None,
        }
        for step, n, before in zip(FUNNEL_STEPS, events, [events[0], *events], strict=False)
    ]


def _body(
    want: Asked, totals: Counts, series: list[Counts], approximate: list[str] | None = None
) -> dict[str, Any]:
    start, end = want.range_ms or (None, None)
    step = want.window or want.span.step
    return {
        "degraded": [],
        "from": start,
        "to": end,
        "totals": totals,
        "series": series,
        "step_ms": step * 1000,
        "approximate": approximate or [],
    }
