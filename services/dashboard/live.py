"""The live feed: `WS /v1/live` sends a snapshot a second, the same one to every client.

It promises: reading costs the same for one client and for a thousand, and nothing while there is none; a slow client
gets fewer snapshots, never old ones; with Redis away clients get the last good snapshot, marked as stale, with its own time.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from clicktide.errors import ClicktideError
from clicktide.settings import Settings
from services.dashboard import snapshot
from services.operations import answer
from services.problems import ProblemError
from services.query.status import StatusApi
from services.query.stores import Stores
from services.telemetry import Telemetry

_LOG = logging.getLogger("clicktide.live")
EVERY_S = 1.0
STALE_AFTER_MS = 5000
# Rankings read whole hashes: they may take one part in so many of the sampler's time.
_SLOW_SHARE = 20


class Live:
    """`now_ms` is the wall clock (ms)."""

    def __init__(
        self,
        settings: Settings,
        stores: Stores,
        status: StatusApi,
        telemetry: Telemetry,
        now_ms: Callable[[], int],
    ) -> None:
        self._stores, self._status, self._telemetry, self._now_ms = stores, status, telemetry, now_ms
        self._namespace = settings.text("redis.namespace")
        self._shards = settings.integer("shards.count")
        self._clients = 0
        self._wanted = asyncio.Event()
        self._change = asyncio.Condition()
        self._version = 0
        self._text = ""
        self._body: dict[str, Any] | None = None
        self._slow: snapshot.Slow | None = None
        self._slow_due = 0.0
        self._stopped = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Ends the sampler and says goodbye to every client."""
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        async with self._change:
            self._change.notify_all()

    async def snapshot(self, _request: Request) -> Response:
        """One snapshot, read now or within the last second."""
        if self._body is None or self._now_ms() - self._body["sent_at"] > EVERY_S * 1000:
            await self._sample()
        if self._body is None:
            raise ProblemError("store_unavailable", "Redis has not answered yet", retry_after=1)
        return answer(self._body)

    async def serve(
        self, ws: WebSocket, may_go_on: Callable[[], bool] = lambda: True, protocol: str | None = None
    ) -> None:
        """One client of the feed; `may_go_on` is asked before each message, `protocol` is what is agreed on."""
        origin = ws.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != ws.headers.get("host"):
            # Another site's page has no business with it, and a browser does not ask before it connects.
            await ws.close(1008)
            return
        await ws.accept(protocol)
        self._clients += 1
        self._telemetry.live_clients.set(self._clients)
        self._wanted.set()
        sender = asyncio.create_task(self._send(ws, may_go_on))
        listener = asyncio.create_task(_until_gone(ws))
        try:
            await asyncio.wait({sender, listener}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._clients -= 1
            self._telemetry.live_clients.set(self._clients)
            # The server closes nothing while somebody listens.
            for task in (listener, sender):
                task.cancel()
            code, _ = await asyncio.gather(sender, listener, return_exceptions=True)
        if isinstance(code, int):
            with suppress(RuntimeError, WebSocketDisconnect):
                await ws.close(code)

    async def _send(self, ws: WebSocket, may_go_on: Callable[[], bool]) -> int:
        """Sends until there is a reason to close; answers with its code."""
        seen = 0
        while True:
            async with self._change:
                await self._change.wait_for(lambda seen=seen: self._version > seen or self._stopped)  # type: ignore[misc]
                seen, text = self._version, self._text
            if self._stopped:
                return 1012  # the service restarts; the page connects again
            if not may_go_on():
                return 1008  # its key has been revoked or has expired
            await ws.send_text(text)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            if not self._clients:
                self._wanted.clear()
                await self._wanted.wait()
                due = loop.time()
            try:
                await self._sample()
            except Exception:  # the feed must outlive whatever one reading meets
                _LOG.exception("sampling failed")
            due = next_beat(due, loop.time())
            await asyncio.sleep(due - loop.time())

    async def _sample(self) -> None:
        now = self._now_ms()
        status = await self._status.body()
        body: dict[str, Any] | None = None
        try:
            found = await self._stores.redis(snapshot.fast(self._namespace, self._shards, now // 1000))
            body = {"as_of": now, **found}
            await self._sample_slow()
        except ClicktideError:
            if self._body is not None and body is None:
                body = {**self._body}
        if body is None:
            body = {"as_of": None}
        elif self._slow is not None:
            body.update(
                categories=self._slow.categories,
                provinces=self._slow.provinces,
                uv=self._slow.uv,
                payers=self._slow.payers,
            )
        body.update(
            sent_at=self._now_ms(),
            degraded=status["degraded"],
            health={k: status[k] for k in ("lag", "retry", "dead", "rate", "breakers", "stores")},
            stale=is_stale(body["as_of"], self._now_ms(), status),
        )
        self._body = body
        self._text = orjson.dumps(body).decode()
        self._version += 1
        async with self._change:
            self._change.notify_all()

    async def _sample_slow(self) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        if started < self._slow_due:
            return
        self._slow = await self._stores.redis(snapshot.slow(self._namespace, self._shards))
        took = loop.time() - started
        self._slow_due = started + max(EVERY_S * 0.9, took * _SLOW_SHARE)


def next_beat(due: float, now: float) -> float:
    """When to read after the beat `due` (s): on the same beat, which a slow reading leaves out and does not shift."""
    return due + EVERY_S * max(1, math.ceil((now - due) / EVERY_S))


async def _until_gone(ws: WebSocket) -> None:
    with suppress(WebSocketDisconnect, RuntimeError):
        while (await ws.receive())["type"] != "websocket.disconnect":
            pass


def is_stale(as_of: int | None, now_ms: int, status: dict[str, Any]) -> bool:
    """Whether what is shown is more than five seconds behind: it was read long ago, or the pipeline lags that much."""
    if as_of is None or now_ms - as_of > STALE_AFTER_MS:
        return True
    return status["lag"] is not None and status["lag"]["seconds"] * 1000 > STALE_AFTER_MS
