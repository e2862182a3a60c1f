"""Routing: the registry of operations as an ASGI application.

Most requests have a path that a look into a table finds; only the others are compared with all patterns. Promises: every path
that is not in the registry is a 404 problem, every method a path does not take a 405 problem with `Allow`, and the route's
pattern (never the path itself) is what metrics and access lines see.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router
from starlette.types import Receive, Scope, Send

from services.access.guard import Guard
from services.operations import Operation, Then
from services.problems import ProblemError, problem

Lifespan = Callable[[Any], AbstractAsyncContextManager[None]]
_CORS_HEADERS = "content-type, content-encoding, authorization, x-request-id, x-tide-key"
_ADMITTED = "admitted"
_EXPOSED = b"retry-after, ratelimit, ratelimit-policy, x-request-id"


class Methods:
    """All operations of one path. `cors`: whether pages of other origins may call it."""

    def __init__(self, path: str, operations: Sequence[Operation], guard: Guard, *, cors: bool) -> None:
        self._path, self._guard, self._cors = path, guard, cors
        self._by_method = {o.method: o for o in operations}
        if "GET" in self._by_method:
            self._by_method.setdefault("HEAD", self._by_method["GET"])
        self._allow = ", ".join(sorted({*self._by_method, "OPTIONS"}))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["route"] = self._path
        request = Request(scope, receive, send)
        if self._cors:
            send = _with_origin(request, send)
        operation = self._by_method.get(scope["method"])
        response: Response
        if operation is not None:
            response = await self._handled(operation, request)
        elif scope["method"] == "OPTIONS":
            response = self._preflight(request)
        else:
            detail = f"{self._path} takes {self._allow}"
            response = problem("method_not_allowed", detail, headers={"Allow": self._allow})
        await response(scope, receive, send)

    def quick(self, scope: Scope, done: Then) -> bool:
        """The short way of the request, where it has one: `done` gets the answer, or None where it has to go the long way."""
        operation = self._by_method.get(scope["method"])
        if operation is None or operation.soon is None or self._cors:
            return False
        state = scope["state"]
        state["route"] = self._path
        request = Request(scope)

        def answered(response: Response | None) -> None:
            done(None if response is None else _with(response, state[_ADMITTED]))

        try:
            state[_ADMITTED] = {}
            state[_ADMITTED] = self._guard.admit(request, operation.scope)
            if not operation.soon(request, answered):
                done(None)
        except ProblemError as e:
            answered(e.response())
        return True

    async def _handled(self, operation: Operation, request: Request) -> Response:
        # Whoever comes from the short way has been let in, and counted, there.
        headers: dict[str, str] | None = request.scope["state"].get(_ADMITTED)
        try:
            if headers is None:
                headers = self._guard.admit(request, operation.scope)
            response = await operation.handler(request)
        except ProblemError as e:
            response = e.response()
        return _with(response, headers or {})

    def _preflight(self, request: Request) -> Response:
        headers = {"Allow": self._allow}
        if self._cors and "access-control-request-method" in request.headers:
            headers["Access-Control-Allow-Methods"] = self._allow
            headers["Access-Control-Allow-Headers"] = _CORS_HEADERS
            headers["Access-Control-Max-Age"] = "86400"
        return Response(status_code=204, headers=headers)


def _with(response: Response, headers: dict[str, str]) -> Response:
    for name, value in headers.items():
        response.headers.setdefault(name, value)
    return response


class _PathRoute(Route):
    """A path; one that another path fits too takes only its own methods from it: a user may be called `a/profile`."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Starlette's own would answer 405 in its own words.
        await self.app(scope, receive, send)


def application(
    operations: Sequence[Operation],
    extra: Sequence[BaseRoute],
    lifespan: Callable[[Any], AsyncIterator[None]] | Lifespan | None,
    cors: frozenset[str],
    guard: Guard,
) -> Table:
    """The router of the operations and of `extra` routes. `cors`: paths that pages of other origins may call."""
    by_path: dict[str, list[Operation]] = {}
    for o in operations:
        by_path.setdefault(o.path, []).append(o)
    routes: list[BaseRoute] = []
    table = Table()
    for path, found in by_path.items():
        methods = [o.method for o in found]
        endpoint = Methods(path, found, guard, cors=path in cors)
        routes.append(_PathRoute(found[0].route, endpoint=endpoint, methods=methods))
        table.add(path, list(found[0].path_parameters), methods, endpoint)
    table.others = Router(
        routes=[*routes, *extra],
        default=_nothing_here,
        redirect_slashes=False,
        lifespan=lifespan,  # type: ignore[arg-type]
    )
    return table


class Table:
    """Paths without an identifier, and those with one before their last part, by that part; `others` is who knows all patterns."""

    def __init__(self) -> None:
        self._fixed: dict[str, tuple[frozenset[str], Methods]] = {}
        self._by_end: dict[str, tuple[frozenset[str], str, str, Methods]] = {}
        self.others: Router

    def add(self, path: str, names: Sequence[str], methods: Sequence[str], endpoint: Methods) -> None:
        taken = frozenset(methods)
        if not names:
            self._fixed[path] = (taken, endpoint)
            return
        before, after = path.split("{" + names[0] + "}")
        if len(names) == 1 and after:
            self._by_end[after] = (taken, before, names[0], endpoint)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self.found(scope) if scope["type"] == "http" and not scope.get("root_path") else None
        await (endpoint or self.others)(scope, receive, send)

    def quick(self, scope: Scope, done: Then) -> bool:
        """The short way, for those whom the table finds."""
        endpoint = self.found(scope)
        return endpoint is not None and endpoint.quick(scope, done)

    def found(self, scope: Scope) -> Methods | None:
        """Whose the request is, with its identifier in the scope; None where the patterns have to be asked."""
        path, method = scope["path"], scope["method"]
        fixed = self._fixed.get(path)
        if fixed is not None:
            return fixed[1] if method in fixed[0] else None
        cut = path.rfind("/")
        ending = self._by_end.get(path[cut:])
        if ending is None:
            return None
        taken, before, name, endpoint = ending
        value = path[len(before) : cut]
        # Of an identifier with a slash, or of none, the patterns know whose it is.
        if method not in taken or not value or "/" in value or not path.startswith(before):
            return None
        scope["path_params"] = {name: value}
        return endpoint


async def _nothing_here(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1000})
        return
    await problem("not_found", "see /docs for what there is")(scope, receive, send)


def _with_origin(request: Request, send: Send) -> Send:
    # `sendBeacon` always sends credentials, and with them the wildcard is not taken: the origin itself must be named. The
    # collector reads no cookie, so this lends nobody a right.
    origin = request.headers.get("origin")
    if origin is None:
        return send

    async def out(message: Any) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [
                *message["headers"],
                (b"access-control-allow-origin", origin.encode("latin-1")),
                (b"access-control-allow-credentials", b"true"),
                (b"access-control-expose-headers", _EXPOSED),
                (b"vary", b"origin"),
            ]
        await send(message)

    return out
