"""The application: which operations the roles have, wired to their stores; one process may have all roles.

Roles: `collector`, `query`, `dashboard` (which reads the stores as the query service does). `build` connects to nothing;
the ASGI lifespan starts what has to run and stops it: at the end the collector takes nothing new and writes what waits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from clicktide import topics
from clicktide.log import open_log
from clicktide.log.port import Log
from clicktide.settings import Settings
from services import catalogue
from services.access.exposure import keyring_of
from services.access.guard import FEED, Guard
from services.access.limits import Quota
from services.collector.batcher import Batcher, Bounds
from services.collector.upload import Upload
from services.connection import Quick
from services.dashboard.live import Live
from services.desk.api import DeskApi
from services.desk.erase import EraseApi
from services.gate import Gate
from services.openapi import document
from services.operations import Operation, answer
from services.problems import ProblemError
from services.query.caching import tag_of, unless_known
from services.query.gauges import PipelineGauges
from services.query.health import Health
from services.query.lookups import LookupsApi
from services.query.metrics import MetricsApi
from services.query.status import StatusApi
from services.query.stores import Stores
from services.query.users import UsersApi
from services.routing import application
from services.telemetry import Telemetry

_LOG = logging.getLogger("clicktide.services")
ROLES = ("collector", "query", "dashboard")


def now_ms() -> int:
    """The wall clock, ms since the epoch."""
    return time.time_ns() // 1_000_000


class Services:
    """One process's services. `app` is the ASGI application; `log` is opened from the settings unless given."""

    def __init__(self, settings: Settings, roles: Sequence[str], log: Log | None = None) -> None:
        self._settings, self._roles = settings, frozenset(roles)
        self._log = open_log(settings) if log is None else log
        self.telemetry = Telemetry()
        self._stopping = False
        self._desk: DeskApi | None = None
        self._eraser: EraseApi | None = None
        s = settings
        ring = keyring_of(s, now_ms, self.telemetry.keys_good.set)
        self.guard = Guard(
            ring, Quota("requests", s.number("http.max_query_rate"), s.number("keys.read_rate"))
        )
        self.batcher = self._batcher()
        self.stores, self._health, self.live, reading = self._reading()
        operations = [*self._collector(), *reading, *self._own()]
        self.operations = operations
        self._document = document(operations, keys=self.guard.on)
        self._document_tag = tag_of(self._document)
        extra: list[BaseRoute] = []
        if self.live is not None:
            extra.append(WebSocketRoute("/v1/live", self._feed))
        router = application(operations, extra, self._lifespan, catalogue.CORS, self.guard)
        gate = Gate(router, self.telemetry, addresses=s.flag("http.log_addresses"))
        self.app: ASGIApp = gate
        self.quick: Quick | None = gate.quick
        if proxies := s.text("http.trusted_proxies").split():
            self.app = ProxyHeadersMiddleware(self.app, proxies)  # type: ignore[arg-type, assignment]
            if s.flag("http.log_addresses"):
                self.quick = None  # it knows the proxy's address only

    def _batcher(self) -> Batcher | None:
        if "collector" not in self._roles:
            return None
        s = self._settings
        bounds = Bounds(
            batch=2000,
            linger=s.number("http.linger_ms") / 1000,
            queue=s.integer("http.queue_events"),
            timeout=s.number("http.ack_timeout_s"),
        )
        return Batcher(self._log, s.text("topics.prefix") + topics.EVENTS, bounds, self.telemetry)

    def _collector(self) -> list[Operation]:
        if self.batcher is None:
            return []
        self.upload = Upload(self._settings, self.batcher, self.telemetry, now_ms)
        return catalogue.collector(self.upload)

    def _reading(self) -> tuple[Stores | None, Health | None, Live | None, list[Operation]]:
        if not self._roles & {"query", "dashboard"}:
            return None, None, None, []
        s = self._settings
        stores = Stores(s, self._log, self.telemetry)
        health = Health(s, stores, now_ms)
        self.telemetry.registry.register(PipelineGauges(health))
        status = StatusApi(s, stores, health, now_ms)
        live: Live | None = None
        operations: list[Operation] = []
        if "query" in self._roles:
            metrics = MetricsApi(s, stores, health, now_ms)
            users = UsersApi(s, stores, health, now_ms, time.monotonic)
            self._desk = DeskApi(s, self._log, now_ms)
            operations += catalogue.desk(self._desk)
            operations += catalogue.query(metrics, users, LookupsApi(s, stores, health), status)
            # Last: its path matches those of a user's answers as well.
            self._eraser = EraseApi(s, self._log, now_ms)
            operations += catalogue.erasing(self._eraser)
        if "dashboard" in self._roles:
            live = Live(s, stores, status, self.telemetry, now_ms)
            operations += catalogue.dashboard(live)
        return stores, health, live, operations

    def _own(self) -> list[Operation]:
        open_metrics = not self.guard.on or self._settings.flag("keys.open_metrics")
        return catalogue.own(self._ready, self.telemetry.handler, self._openapi, open_metrics=open_metrics)

    async def _feed(self, ws: WebSocket) -> None:
        assert self.live is not None
        try:
            may_go_on = self.guard.admit_feed(ws)
        except ProblemError as e:
            await ws.send_denial_response(e.response())
            return
        offered = FEED in (ws.scope.get("subprotocols") or ())
        await self.live.serve(ws, may_go_on, FEED if offered else None)

    async def _openapi(self, request: Request) -> Response:
        return unless_known(request, self._document, self._document_tag)

    async def _ready(self, _request: Request) -> Response:
        if self._stopping:
            raise ProblemError("stopping", "the service is stopping", retry_after=5)
        if self.batcher is not None and not self.batcher.log_up:
            # Whoever may ask this without a key need not learn the names of our brokers.
            detail = "the broker does not answer" if self.guard.on else self.batcher.last_error
            raise ProblemError("log_unavailable", detail, retry_after=1)
        return answer({"status": "ready"})

    @asynccontextmanager
    async def _lifespan(self, _app: Any) -> AsyncIterator[None]:
        if self.batcher is not None:
            self.batcher.start()
        if self.live is not None:
            self.live.start()
        yield
        await self.stop()

    async def stop(self) -> None:
        """Not ready for `http.unready_s`; then takes nothing new and ends what runs, within `http.drain_s`. May be called twice."""
        if self._stopping:
            return
        self._stopping = True
        # Whoever sends requests here needs time to see that it is to stop; until then it gets its answers as ever.
        await asyncio.sleep(self._settings.number("http.unready_s"))
        if self.live is not None:
            await self.live.stop()
        if self.batcher is not None:
            done = await asyncio.to_thread(self.batcher.stop, self._settings.number("http.drain_s"))
            if not done:
                _LOG.warning("the broker did not take what waited; those clients were answered 503")
        if self._desk is not None:
            self._desk.close()
        if self._eraser is not None:
            self._eraser.close()
        if self._health is not None:
            await self._health.close()
        if self.stores is not None:
            await self.stores.close()
