"""The gate: what every request passes, whatever its route.

Gives each request an id (the client's own where it is sane) and echoes it, counts and times the answer, turns raised
problems into documents, and any other exception into a plain 500 problem with one line in the log. Access lines
are JSON on the `clicktide.access` logger, one a request; they hold route patterns and ids of keys, never a path, a query, a token
or a user, and callers' addresses only where that is asked for.
"""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable
from functools import cache

import orjson
from prometheus_client import Counter, Histogram
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from clicktide.errors import ClicktideError
from services.connection import Reply
from services.problems import ProblemError, problem
from services.routing import Table
from services.telemetry import Telemetry

_ACCESS = logging.getLogger("clicktide.access")
_LOG = logging.getLogger("clicktide.http")
_BEGUN = "begun"
_SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class Gate:
    """ASGI middleware around the whole application."""

    def __init__(
        self,
        app: Table,
        telemetry: Telemetry,
        clock: Callable[[], float] = time.perf_counter,
        *,
        addresses: bool = False,
    ) -> None:
        self._app, self._telemetry, self._clock, self._addresses = app, telemetry, clock, addresses
        # Looking a child of a metric up by its labels costs more than counting.
        self._meters = cache(self._children)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        started, request_id = state.get(_BEGUN) or (self._clock(), _request_id(scope))
        state["request_id"] = request_id.decode()
        status = taken = sent = 0

        async def reply(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
            else:
                sent += len(message.get("body", b""))
            await send(message)

        async def hear() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            return message

        try:
            await self._app(scope, hear, reply)
        except ProblemError as e:
            await e.response()(scope, receive, reply)
        except Exception as e:
            if status:
                raise
            _LOG.exception(
                "request %s failed", request_id.decode(), exc_info=not isinstance(e, ClicktideError)
            )
            await problem(
                "internal", "see the service's log for this request id", request_id=request_id.decode()
            )(scope, receive, reply)
        finally:
            self._note(scope, status, self._clock() - started, (taken, sent))

    def quick(self, scope: Scope, reply: Reply) -> bool:
        """The short way, for requests that have one; False for all others, of which nothing has been done then."""
        state = scope["state"]
        started, request_id = state[_BEGUN] = self._clock(), _request_id(scope)
        state["request_id"] = request_id.decode()

        def done(response: Response | None) -> None:
            if response is None:
                reply.serve()
                return
            body = bytes(response.body)
            reply.finish(response.status_code, [*response.raw_headers, (b"x-request-id", request_id)], body)
            self._note(scope, response.status_code, self._clock() - started, (0, len(body)))

        return self._app.quick(scope, done)

    def _children(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        return (
            self._telemetry.requests.labels(method, route, str(status)),
            self._telemetry.seconds.labels(route),
        )

    def _note(self, scope: Scope, status: int, seconds: float, sizes: tuple[int, int]) -> None:
        state = scope["state"]
        route = state.get("route", "none")
        # A method is the client's own text: only known ones may become labels.
        method = (
            scope["method"] if scope["method"] in {"GET", "HEAD", "POST", "DELETE", "OPTIONS"} else "other"
        )
        count, times = self._meters(method, route, status)
        count.inc()
        times.observe(seconds)
        if _ACCESS.isEnabledFor(logging.INFO):
            key = state.get("key")
            line = {
                "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "method": method,
                "route": route,
                "status": status,
                "ms": round(seconds * 1000, 2),
                "bytes_in": sizes[0],
                "bytes_out": sizes[1],
                "key": None if key is None else key.id,
                "request_id": state["request_id"],
            }
            if self._addresses:
                line["client"] = (scope.get("client") or ("",))[0]
            _ACCESS.info(orjson.dumps(line).decode())


def _request_id(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _SANE_ID.fullmatch(value):
            return bytes(value)
    # Not secret, only different: no call to the system for it.
    return b"%016x" % random.getrandbits(64)
