"""A connection: HTTP/1.1 on the loop's own thread, the short way for the usual request.

uvicorn's protocol on httptools does the framing, bodies, pipelining and upgrades. Here is what a door that stands open needs
beside (heads that end in time and are not endless, a bound on connections), an answer in one write, and `Quick`: requests that
are answered without a task. docs/decisions/0004-http.md has the figures.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote

import httptools
from starlette.types import Message, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from services.problems import problem

Headers = Iterable[tuple[bytes, bytes]]


class Reply(Protocol):
    """How the short way answers a request, once: now or later, but on the loop's thread."""

    def finish(self, status: int, headers: Headers, body: bytes) -> None:
        """The whole answer."""

    def serve(self) -> None:
        """It has to go the long way, through the application."""


# Whether the request goes the short way.
Quick = Callable[[Scope, Reply], bool]

HEAD_BYTES, _HEADERS = 64 * 1024, 256
# So many connections beyond the bound are told so; the others are closed as they come.
_TOLD = 64
_ASGI = {"version": "3.0", "spec_version": "2.3"}
_IDLE = math.inf
_BEGINS = -1


class Bounds(NamedTuple):
    """Connections at the same time, seconds until a request's head is there, seconds to end in."""

    connections: int
    head: float
    drain: float


class _TooLarge(Exception):
    pass


class Connection(HttpToolsProtocol):
    """`quick` may be None."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        bounds: Bounds,
        quick: Quick | None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._bounds, self._quick = bounds, quick
        self._refused = False
        # Since when (loop's seconds) a head is waited for; whether it has begun, and bytes that came of it.
        self._since, self._in_head, self._head = _IDLE, False, 0
        self._much = False
        self._watch: asyncio.TimerHandle | None = None

    # Connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        over = len(self.connections) - self._bounds.connections
        if over > _TOLD:
            transport.abort()
            return
        if over > 0:
            self._refused, self.app, self._quick = True, _full, None
        self._since = self.loop.time()
        self._watch = self.loop.call_later(self._bounds.head, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        self._leave()
        super().handle_websocket_upgrade()

    def _leave(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _look(self) -> None:
        # One timer a connection, not one a request.
        left = self._since + self._bounds.head - self.loop.time()
        if left > 0:
            self._watch = self.loop.call_later(min(left, self._bounds.head), self._look)
        else:
            self._watch = None
            self.transport.close()

    # What comes

    def data_received(self, data: bytes) -> None:
        # What comes at once may be a whole head that is too large or the end of one, or many small ones.
        self._much = self._in_head or len(data) > HEAD_BYTES
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
            return
        except httptools.HttpParserError as e:
            if isinstance(e.__context__, _TooLarge):
                self._refuse_head()
                return
            self._refuse("bad_request", "it does not keep to HTTP/1.1")
            return
        if self._in_head:
            # Of one that begins here there may be a part of a header more, and something before it.
            self._head = self._size() if self._head == _BEGINS else self._head + len(data)
            if self._head > HEAD_BYTES:
                self._refuse_head()

    def on_message_begin(self) -> None:
        self._in_head, self._head = True, _BEGINS
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        self._since, self._in_head = _IDLE, False
        if len(self.headers) > _HEADERS or (self._much and self._size() > HEAD_BYTES):
            raise _TooLarge
        parser, url = self.parser, self.url
        method = parser.get_method().decode("ascii")
        version = parser.get_http_version()
        if url[:1] == b"/" and b"#" not in url:
            path, _, query = url.partition(b"?")
        else:
            parsed = httptools.parse_url(url)
            path, query = parsed.path or b"", parsed.query or b""
        text = path.decode("ascii")
        if "%" in text:
            text = unquote(text, errors="surrogateescape")
        self.scope = scope = {  # type: ignore[assignment]
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "method": method,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": "",
            "path": text,
            "raw_path": path,
            "query_string": query,
            "headers": self.headers,
            "state": self.app_state.copy(),
        }
        upgrade = parser.should_upgrade()
        if upgrade and self._should_upgrade():
            return
        before = self.cycle
        keep_alive = version != "1.0" and not upgrade and not self._refused and parser.should_keep_alive()
        cycle = self.cycle = Cycle(self, keep_alive)
        if before is not None and not before.response_complete:
            # It waits its turn: answers come in the order of the requests.
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))
        elif self._quick is None or self.flow.write_paused or not self._quick(scope, cycle):
            self.serve(cycle)

    def on_response_complete(self) -> None:
        if self.transport.is_closing():
            return
        if self.pipeline:
            # Nothing more is read until these have their answers, or ask for their bodies.
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._since = self.loop.time()
            self.flow.resume_reading()

    def serve(self, cycle: Cycle) -> None:
        """Hands the request to the application."""
        self._start_asgi_task(cycle, self.app)

    def _size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _refuse_head(self) -> None:
        self._refuse("head_too_large", f"a head may have {HEAD_BYTES} bytes and {_HEADERS} headers")

    def _refuse(self, code: str, detail: str) -> None:
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:
                # It is what comes behind a good request: that one has its answer first.
                cycle.keep_alive = False
                self.flow.pause_reading()
                return
            cycle.disconnected = True
            cycle.message_event.set()
        if not self.transport.is_closing():
            if cycle is None or cycle.response_complete or not cycle.response_started:
                answer = problem(code, detail, headers={"Connection": "close"})
                self.transport.write(_head(answer.status_code, answer.raw_headers) + bytes(answer.body))
            self.transport.close()


class Cycle(RequestResponseCycle):
    """One request and its answer, which is one write where it comes in one piece."""

    def __init__(self, connection: Connection, keep_alive: bool) -> None:
        super().__init__(
            connection.scope,
            connection.transport,
            connection.flow,
            connection.logger,
            connection.access_logger,
            access_log=False,
            default_headers=connection.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=connection.expect_100_continue,
            keep_alive=keep_alive,
            on_response=connection.on_response_complete,
        )
        self._connection = connection
        self._start: Message | None = None

    def serve(self) -> None:
        if not self.disconnected:
            self._connection.serve(self)

    async def send(self, message: Message) -> None:  # type: ignore[override]
        if not self.response_started:
            if message["type"] == "http.response.start":
                self._start = message
                return
            if (start := self._start) is not None:
                if not message.get("more_body") and not self.flow.write_paused:
                    self.finish(start["status"], start["headers"], message.get("body", b""))
                    return
                await super().send(start)  # type: ignore[arg-type]
        await super().send(message)  # type: ignore[arg-type]

    def finish(self, status: int, headers: Headers, body: bytes) -> None:
        """The whole answer; whoever has gone meanwhile gets none."""
        if self.disconnected or self.transport.is_closing():
            return
        self.response_started = self.response_complete = True
        self.message_event.set()
        lines = [*self.default_headers, *headers]
        if not self.keep_alive:
            lines.append((b"connection", b"close"))
        try:
            head = _head(status, lines)
        except RuntimeError:
            self.transport.close()  # nobody else would: on the short way there is no task that fails
            raise
        self.transport.write(head + (b"" if self.scope["method"] == "HEAD" else body))
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


def _head(status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
    lines = [STATUS_LINE[status]]
    for name, value in headers:
        lines += (name, b": ", value, b"\r\n")
    lines.append(b"\r\n")
    head = b"".join(lines)
    if head.count(b"\n") != len(headers) + 2:
        raise RuntimeError("a header of the answer holds a line feed")
    return head


async def _full(scope: Scope, receive: Receive, send: Send) -> None:
    detail = "there are as many connections as there may be"
    await problem("too_many_connections", detail, retry_after=1)(scope, receive, send)
