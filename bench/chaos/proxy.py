"""Links: loopback connections that can be cut, held up, delayed or slowed, in a process of its own.

`python -m bench.chaos.proxy LINKS` (JSON: name -> [listen, upstream]; an address is `tcp:PORT` or `unix:PATH`) reads orders
from its standard input, one JSON line each, answers each with a line, and ends when the input does. Promises: a link
that is open is transparent and keeps the order; what was on its way when a link is cut or pointed elsewhere is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import sys
from collections.abc import Mapping

from bench.chaos.plan import CUT, DELAY, HOLE, TRICKLE

OPEN = "open"
MODES = (OPEN, CUT, HOLE, DELAY, TRICKLE)
DELAY_S = 0.2
TRICKLE_BYTES, TRICKLE_EVERY_S = 512, 0.1
_CHUNK = 1 << 16
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time: the close is a reset

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Link:
    """One listener and where it leads. Modes may change at any time; connections live through all of them but `cut`."""

    def __init__(self, listen: str, upstream: str) -> None:
        self.listen, self.upstream, self.mode = listen, upstream, OPEN
        self._changed = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> asyncio.Server:
        kind, _, where = self.listen.partition(":")
        if kind == "unix":
            return await asyncio.start_unix_server(self._serve, where)
        return await asyncio.start_server(self._serve, "127.0.0.1", int(where))

    def turn(self, mode: str) -> None:
        """Raises ValueError for a mode that does not exist."""
        if mode not in MODES:
            raise ValueError(f"unknown mode {mode!r}; expected one of {', '.join(MODES)}")
        self.mode = mode
        self._wake()
        if mode == CUT:
            self._reset()

    def point(self, upstream: str) -> None:
        self.upstream = upstream
        self._reset()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _reset(self) -> None:
        for writer in list(self._writers):
            _abort(writer)

    async def _while_held(self) -> None:
        while self.mode == HOLE:
            await self._changed.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        far: asyncio.StreamWriter | None = None
        try:
            await self._while_held()
            if self.mode != CUT:
                far_reader, far = await _connect(self.upstream)
                self._writers.add(far)
                await asyncio.gather(self._pump(reader, far), self._pump(far_reader, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass  # one end is gone: so is the other
        finally:
            for end in (writer, far):
                if end is not None:
                    self._writers.discard(end)
                    _abort(end)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            await self._pass(data, writer)
        await self._while_held()
        if writer.can_write_eof():
            writer.write_eof()

    async def _pass(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        if self.mode == DELAY:
            await asyncio.sleep(DELAY_S)
        while data:
            await self._while_held()
            piece = TRICKLE_BYTES if self.mode == TRICKLE else len(data)
            writer.write(data[:piece])
            await writer.drain()
            data = data[piece:]
            if self.mode == TRICKLE:
                await asyncio.sleep(TRICKLE_EVERY_S)


async def _connect(address: str) -> Ends:
    kind, _, where = address.partition(":")
    if kind == "unix":
        return await asyncio.open_unix_connection(where)
    return await asyncio.open_connection("127.0.0.1", int(where))


def _abort(writer: asyncio.StreamWriter) -> None:
    found = writer.get_extra_info("socket")
    if found is not None and found.family == socket.AF_INET:
        with contextlib.suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


def obey(links: Mapping[str, Link], line: bytes) -> str:
    """Do one order (`{"link", "mode"}` or `{"link", "to"}`); the answer, `ok` or what is wrong."""
    try:
        order = json.loads(line)
        link = links[order["link"]]
        if "to" in order:
            link.point(order["to"])
        if "mode" in order:
            link.turn(order["mode"])
    except (ValueError, KeyError, TypeError) as e:
        return f"refused: {' '.join(str(e).split())}"
    return "ok"


async def _main(wanted: Mapping[str, list[str]]) -> None:
    links = {name: Link(listen, upstream) for name, (listen, upstream) in wanted.items()}
    servers = [await link.start() for link in links.values()]
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    print("ok", flush=True)
    while line := await reader.readline():
        print(obey(links, line), flush=True)
    for server in servers:
        server.close()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main(json.loads(sys.argv[1])))
