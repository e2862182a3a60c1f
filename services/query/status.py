"""The status: `/v1/status`, how the pipeline is, as far as can be known now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from clicktide import topics
from clicktide.errors import ClicktideError
from clicktide.read import buckets, lag
from clicktide.read.lag import Standing
from clicktide.read.plan import both
from clicktide.read.spans import Span
from clicktide.settings import Settings
from services.operations import answer
from services.query.health import Health
from services.query.stores import Stores

_RATE_S = 10


class StatusApi:
    """`now_ms` is the wall clock (ms)."""

    def __init__(self, settings: Settings, stores: Stores, health: Health, now_ms: Callable[[], int]) -> None:
        self._stores, self._health, self._now_ms = stores, health, now_ms
        self._namespace = settings.text("redis.namespace")
        self._shards = settings.integer("shards.count")

    async def status(self, _request: Request) -> Response:
        return answer(await self.body())

    async def body(self) -> dict[str, Any]:
        """The answer as `shapes.Status`. Never raises for a store that is away."""
        look = await self._health.look()
        late, rate = await self._counted()
        sql = await self._sql()
        prefix = self._health.prefix
        by_topic = look.standings
        degraded = sorted({*self._health.degraded_by(look), *(n for n, s in sql.items() if s != "up")})
        return {
            "as_of": look.at,
            "degraded": degraded,
            "state": "degraded" if degraded else "up",
            "lag": _lag((by_topic or {}).get(prefix + topics.EVENTS), look.at),
            "retry": None if by_topic is None else _retries(by_topic, prefix),
            "dead": None if by_topic is None else _dead(by_topic.get(prefix + topics.DEAD, [])),
            "late": late,
            "rate": rate,
            "breakers": look.breakers or {},
            "alarms": look.alarms or {},
            "stores": {
                "redis": "up" if look.done is not None else "away",
                "log": "up" if by_topic is not None else "away",
                **sql,
            },
        }

    async def _counted(self) -> tuple[int | None, float | None]:
        # The second that runs is not over: it would make the rate look low.
        span = Span("s", self._now_ms() // 1000 - _RATE_S, _RATE_S)
        read = both(
            buckets.totals(self._namespace, self._shards, ("late",)),
            buckets.series(self._namespace, self._shards, span, buckets.EVENT_FIELDS),
        )
        try:
            totals, series = await self._stores.redis(read)
        except ClicktideError:
            return None, None
        return totals["late"], sum(sum(c.values()) for c in series.values()) / _RATE_S

    async def _sql(self) -> dict[str, str]:
        """Whether each DSN answers."""
        try:
            dsns = range(len(self._stores.sql_store().dsns))
        except ClicktideError:
            return {"mysql": "unknown"}
        out: dict[str, str] = {}
        for i in dsns:
            name = f"mysql.{i}"
            try:
                await self._stores.ping(i)
                out[name] = "up"
            except ClicktideError:
                out[name] = "away"
        return out


def _lag(standings: list[Standing] | None, now_ms: int) -> dict[str, Any] | None:
    if standings is None:
        return None
    partitions = [
        {
            "partition": s.partition,
            "position": s.done,
            "end": s.end,
            "records": s.records,
            "seconds": lag.lag_seconds(s, now_ms),
        }
        for s in standings
    ]
    return {
        "records": sum(s.records for s in standings),
        "seconds": max((lag.lag_seconds(s, now_ms) for s in standings), default=0.0),
        "partitions": partitions,
    }


def _retries(by_topic: dict[str, list[Standing]], prefix: str) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for tier in topics.TIERS:
        standings = by_topic.get(f"{prefix}retry.{tier}", [])
        dues = [d for s in standings if (d := lag.due(s)) is not None]
        out[tier] = {"records": sum(s.records for s in standings), "oldest_due": min(dues, default=None)}
    return out


def _dead(standings: list[Standing]) -> int:
    return sum(s.end - s.earliest for s in standings)
