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
from services.operations import answer, parameters
from services.problems import ProblemError
from services.query.health import Health
from services.query.ranges import Asked, RangeQuery, asked
from services.query.stores import Stores

_REMEMBERED = 256


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
GMV = Measure({"gmv": "gmv", "refunds": "refunds", "n:pay": "pays", "n:order": "orders"})


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
        self._good: OrderedDict[Any, dict[str, Any]] = OrderedDict()
        self._reading: dict[Any, asyncio.Task[dict[str, Any]]] = {}

    async def events(self, request: Request) -> Response:
        return await self._measured(request, "events", EVENTS)

    async def genders(self, request: Request) -> Response:
        return await self._measured(request, "genders", GENDERS)

    async def gmv(self, request: Request) -> Response:
        return await self._measured(request, "gmv", GMV)

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

        async def make() -> dict[str, Any]:
            whole = None if want.whole else want.span
            totals = both(self._distinct("v", whole), self._distinct("y", whole))
            hours = both(
                buckets.distinct_series(self._namespace, self._shards, "v", want.span),
                buckets.distinct_series(self._namespace, self._shards, "y", want.span),
            )
            (uv, payers), (seen, paid) = await self._stores.redis(both(totals, hours))
            series = [{"at": s * 1000, "uv": seen[s], "payers": paid[s]} for s in want.span.starts]
            return _body(want, {"uv": uv, "payers": payers}, series, approximate=["uv", "payers"])

        return await self._answer(("uv", *structs.astuple(query)), make)

    async def _measured(self, request: Request, name: str, measure: Measure) -> Response:
        query = parameters(request, RangeQuery)
        want = self._asked(query, "s", 60)

        async def make() -> dict[str, Any]:
            return await self._measure(want, measure, with_payers=measure is GMV)

        return await self._answer((name, *structs.astuple(query)), make)

    async def _measure(self, want: Asked, measure: Measure, *, with_payers: bool) -> dict[str, Any]:
        fields = tuple(measure.names)
        read: Read[Any] = buckets.series(self._namespace, self._shards, want.span, fields)
        read = both(read, buckets.totals(self._namespace, self._shards, fields) if want.whole else _nothing())
        # Distinct users are kept by hours and days: for a finer range they are those of the hours it touches.
        payers = self._distinct("y", self._hours(want)) if with_payers else _nothing()
        (found, all_time), paid = await self._stores.redis(both(read, payers))
        points = dense(want.span, found, fields)
        if want.window is not None and want.slide is not None:
            points = slid(points, want.span.step, want.window, want.slide, fields)
            totals = {f: points[-1][f] for f in fields}
        else:
            totals = all_time if want.whole else total(points, fields)
        series = [{"at": p["at"], **measure.named(p)} for p in points]
        named = measure.named(totals)
        if with_payers:
            named["payers"] = paid
        return _body(want, named, series, approximate=["payers"] if with_payers else [])

    async def _ranked(self, request: Request, prefix: Literal["c:", "p:"]) -> Response:
        query = parameters(request, RankedQuery)
        want = self._asked(query, "m", 3600)

        async def make() -> dict[str, Any]:
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
            return {**body, "omitted": max(0, len(names) - query.limit)}

        return await self._answer((prefix, *structs.astuple(query)), make)

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

    async def _answer(self, key: Any, make: Callable[[], Coroutine[Any, Any, dict[str, Any]]]) -> Response:
        """What `make` finds; with Redis away, the last answer to the same question, as old as it says; else 503."""
        old = self._good.get(key)
        if old is not None and 0 <= self._now_ms() - old["as_of"] < self._share_ms:
            return answer({**old, "degraded": self._health.degraded()})
        reading = self._reading.get(key)
        if reading is None:
            reading = self._reading[key] = asyncio.get_running_loop().create_task(self._read(key, make))
        try:
            # Others may wait for it too: one caller who leaves must not end it.
            body = await asyncio.shield(reading)
        except StoreError as e:
            if old is None:
                raise ProblemError("store_unavailable", str(e), retry_after=1, degraded=[e.store]) from e
            body = old
        return answer({**body, "degraded": self._health.degraded()})

    async def _read(
        self, key: Any, make: Callable[[], Coroutine[Any, Any, dict[str, Any]]]
    ) -> dict[str, Any]:
        try:
            body = {"as_of": self._now_ms(), **(await make())}
        finally:
            del self._reading[key]
        self._good[key] = body
        self._good.move_to_end(key)
        if len(self._good) > _REMEMBERED:
            self._good.popitem(last=False)
        return body


def _nothing() -> Read[Any]:
    return Read([], lambda _: None)


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
