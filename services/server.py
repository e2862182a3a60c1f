"""The server: serves an ASGI application until it is told to stop, in this one process.

Promises: binds before anything is started, and says in one line when it cannot; on SIGINT or SIGTERM open requests
are answered, the application's lifespan ends, and the process is gone within `drain` seconds and a little; there is no child
that could outlive a kill -9. docs/decisions/0004-http.md has the reasons.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import uvloop
from granian.http import HTTP1Settings
from granian.server.embed import Server
from starlette.types import ASGIApp

from clicktide.errors import ClicktideError

_LOG = logging.getLogger("clicktide.server")


# A request's head; a flood of headers ends here.
_HEAD_BYTES = 64 * 1024
# Beside connections: the log, the stores, files.
_OTHER_FILES = 256
_FEW_FILES = 2048


class Tls(NamedTuple):
    """PEM files: the certificate with its chain, and its private key."""

    cert: Path
    key: Path


class Bounds(NamedTuple):
    """Connections at the same time, seconds until a request's head is there, seconds to end in."""

    connections: int
    head: float
    drain: float


class CannotListen(ClicktideError):
    """The address cannot be had."""

    code = "cannot_listen"


def check_address(host: str, port: int) -> int:
    """The port, a free one for 0. Raises `CannotListen` when `host:port` cannot be bound now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
            return int(probe.getsockname()[1])
        except (OSError, OverflowError) as e:
            what = "it is in use" if getattr(e, "errno", 0) == errno.EADDRINUSE else str(e)
            raise CannotListen(f"cannot listen on {host}:{port}: {what}") from e


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
    make: Callable[[], tuple[ASGIApp, Callable[[], Awaitable[None]]]],
    host: str,
    port: int,
    bounds: Bounds,
    on_ready: Callable[[int], None] | None = None,
    tls: Tls | None = None,
) -> None:
    """Serves what `make` answers (the application, and how to stop what it runs), until SIGINT or SIGTERM."""
    port = check_address(host, port)
    uvloop.run(_serve(make, host, port, bounds, on_ready, tls))


async def _serve(
    make: Callable[[], tuple[ASGIApp, Callable[[], Awaitable[None]]]],
    host: str,
    port: int,
    bounds: Bounds,
    on_ready: Callable[[int], None] | None,
    tls: Tls | None,
) -> None:
    app, stop = make()
    server = Server(
        app,
        address=host,
        port=port,
        interface="asgi",  # type: ignore[arg-type]
        log_enabled=False,
        backlog=2048,
        # It counts connections, idle ones too: a small number would let a few thousand of those shut everybody out.
        backpressure=bounds.connections,
        # Its smallest buffer is 8 KiB; past it a head is answered with 431.
        http1_settings=HTTP1Settings(
            header_read_timeout=max(1, int(bounds.head * 1000)), max_buffer_size=_HEAD_BYTES
        ),
        ssl_cert=tls.cert if tls else None,
        ssl_key=tls.key if tls else None,
    )
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told.set)
    serving = loop.create_task(server.serve())
    ready = loop.create_task(_when_listening(host, port, on_ready))
    waiting = loop.create_task(told.wait())
    await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    if not waiting.done():
        waiting.cancel()
        await serving
        raise CannotListen(f"the server on {host}:{port} ended by itself")
    # First what the application runs (open requests get their answers by it), then the sockets.
    await stop()
    server.stop()  # type: ignore[no-untyped-call]
    try:
        async with asyncio.timeout(max(1.0, bounds.drain)):
            await serving
    except TimeoutError:
        _LOG.warning("some connections did not end in %g s", bounds.drain)
        # Whatever still hangs holds no event that was answered as accepted.
        logging.shutdown()
        os._exit(0)


async def _when_listening(host: str, port: int, on_ready: Callable[[int], None] | None) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
        except OSError:
            await asyncio.sleep(0.02)
            continue
        if on_ready is not None:
            on_ready(port)
        return
