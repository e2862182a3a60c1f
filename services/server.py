"""The server: serves an ASGI application until it is told to stop, in this one process.

Promises: binds before anything is started, and says in one line when it cannot; on SIGINT or SIGTERM open requests
are answered, the application's lifespan ends, and the process is gone within `drain` seconds and a little; there is no child
that could outlive a kill -9. docs/decisions/0004-http.md has the reasons.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import os
import resource
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import uvloop
from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.server import Server

from clicktide.errors import ClicktideError
from services.connection import Bounds, Connection, Quick

_LOG = logging.getLogger("clicktide.server")
# Beside connections: the log, the stores, files.
_OTHER_FILES = 256
_FEW_FILES = 2048
_BACKLOG = 2048
# Of what a feed's clients send nothing is read but that they go.
_MESSAGE_BYTES = 4096


class Tls(NamedTuple):
    """PEM files: the certificate with its chain, and its private key."""

    cert: Path
    key: Path


class CannotListen(ClicktideError):
    """The address cannot be had."""

    code = "cannot_listen"


class Served(NamedTuple):
    """What is served: the application, its short way, and how to stop what it runs."""

    app: ASGIApp
    quick: Quick | None
    stop: Callable[[], Awaitable[None]]


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there, on a free port for 0. Raises `CannotListen`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(_BACKLOG)
    except (OSError, OverflowError) as e:
        found.close()
        what = "it is in use" if getattr(e, "errno", 0) == errno.EADDRINUSE else str(e)
        raise CannotListen(f"cannot listen on {host}:{port}: {what}") from e
    found.setblocking(False)
    return found


def raise_file_limit(connections: int) -> int:
    """Asks the system for as many open files as that takes; answers with how many connections it allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < min(wanted, _FEW_FILES):
        _LOG.warning("the system allows only %d open files (ulimit -n)", most)
    return max(1, min(connections, most - _OTHER_FILES))


def serve(
    make: Callable[[], Served],
    host: str,
    port: int,
    bounds: Bounds,
    on_ready: Callable[[int], None] | None = None,
    tls: Tls | None = None,
) -> None:
    """Serves what `make` answers until SIGINT or SIGTERM; `on_ready` gets the port."""
    with listen(host, port) as found:
        uvloop.run(_serve(make, found, bounds, on_ready, tls))


class _Server(Server):
    def __init__(self, config: Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # what has to be stopped before the server knows nobody but us


async def _serve(
    make: Callable[[], Served],
    found: socket.socket,
    bounds: Bounds,
    on_ready: Callable[[int], None] | None,
    tls: Tls | None,
) -> None:
    app, quick, stop = make()
    config = Config(
        app,
        http=partial(Connection, bounds=bounds, quick=quick),  # type: ignore[arg-type]
        ws="websockets-sansio",
        ws_max_size=_MESSAGE_BYTES,
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=max(1, math.ceil(bounds.drain)),
        ssl_certfile=tls.cert if tls else None,
        ssl_keyfile=tls.key if tls else None,
    )
    # It says of every client's fault what the client is told already.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    port = found.getsockname()[1]
    server = _Server(config, (lambda: on_ready(port)) if on_ready is not None else (lambda: None))
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told.set)
    serving = loop.create_task(server.serve([found]))
    waiting = loop.create_task(told.wait())
    await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if not waiting.done():
        waiting.cancel()
        await serving
        raise CannotListen("the server ended by itself")
    # First what the application runs (open requests get their answers by it), then the sockets.
    await stop()
    server.should_exit = True
    try:
        async with asyncio.timeout(max(1.0, bounds.drain) + 2):
            await serving
    except TimeoutError:
        _LOG.warning("some connections did not end in %g s", bounds.drain)
        # Whatever still hangs holds no event that was answered as accepted.
        logging.shutdown()
        os._exit(0)
