"""The load of queries: GETs on a fixed schedule over kept connections, in a process of its own.

Open loop: query n is due at start + n / rate and its latency counts from then, however late it was sent or a connection was
free; a slow answer holds nobody up but itself. `python -m bench.query_load` prints its figures as one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urlsplit

import orjson
import uvloop

from bench import catalogue
from bench.timer import Timer
from clicktide import turns

_LATE_S = 0.005
_GRACE_S = 5.0
_AT_ONCE = 64  # queries that are due
_ZIPF = 0.8  # as the generator draws its users


@dataclass(slots=True)
class Figures:
    """`ms` by path, each from the query's due time to the end of its answer; `status` counts answers, `late` queries that
    were sent more than 5 ms after they were due, `failed` those that got no answer."""

    ms: dict[str, list[float]] = field(default_factory=dict)
    status: Counter[int] = field(default_factory=Counter)
    late: int = 0
    failed: int = 0
    seconds: float = 0.0
    degraded: int = 0


class Query:
    """One query: which path, as bytes to send, and when it is due (monotonic s)."""

    __slots__ = ("counted", "due", "head", "path")

    def __init__(self, path: str, head: bytes, due: float, *, counted: bool) -> None:
        self.path, self.head, self.due, self.counted = path, head, due, counted


class Connection(asyncio.Protocol):
    """One kept HTTP/1.1 connection with at most one query under way."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._got = b""
        self.query: Query | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def send(self, query: Query) -> None:
        self.query = query
        self._transport.write(query.head)

    def data_received(self, data: bytes) -> None:
        got = self._got + data if self._got else data
        end = got.find(b"\r\n\r\n")
        head = got[:end].lower() if end >= 0 else b""
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if end < 0 or len(got) < end + 4 + length:
            self._got = got
            return
        self._got = b""
        status = int(got[9:12])
        degraded = b'"degraded":[]' not in got
        query, self.query = self.query, None
        assert query is not None
        self._load.answered(self, query, status, degraded=degraded)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's name
        self._load.lost(self)

    def close(self) -> None:
        self._transport.abort()


class Load:
    """Sends `queries` by as many connections as it was given."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._free: deque[Connection] = deque()
        self._all: set[Connection] = set()
        self._waiting: deque[Query] = deque()
        self._under_way = 0
        self._loop = asyncio.get_running_loop()
        self._clock = time.monotonic  # the loop's own is that of its last turn
        self.figures = Figures()

    async def connect(self, connections: int) -> None:
        for _ in range(connections):
            _, found = await self._loop.create_connection(lambda: Connection(self), *self._address)
            self._free.append(found)
            self._all.add(found)

    def put(self, query: Query) -> None:
        self._under_way += 1
        if self._free:
            self._send(self._free.popleft(), query)
        else:
            self._waiting.append(query)

    def _send(self, connection: Connection, query: Query) -> None:
        if query.counted and self._clock() - query.due > _LATE_S:
            self.figures.late += 1
        connection.send(query)

    def answered(self, connection: Connection, query: Query, status: int, *, degraded: bool) -> None:
        self._under_way -= 1
        if query.counted:
            took = (self._clock() - query.due) * 1000
            self.figures.ms.setdefault(query.path, []).append(took)
            self.figures.status[status] += 1
            self.figures.degraded += degraded and status == 200
        if self._waiting:
            self._send(connection, self._waiting.popleft())
        else:
            self._free.append(connection)

    def lost(self, connection: Connection) -> None:
        self._all.discard(connection)
        if connection in self._free:
            self._free.remove(connection)
        if connection.query is not None:
            self._under_way -= 1
            self.figures.failed += connection.query.counted

    async def end(self) -> None:
        """Waits shortly for what is under way; what is then unanswered has failed."""
        until = self._clock() + _GRACE_S
        while self._under_way and self._clock() < until:  # noqa: ASYNC110 - answers come by a callback
            await asyncio.sleep(0.01)
        self.figures.failed += self._under_way
        self._under_way = 0
        for connection in list(self._all):
            connection.query = None
            connection.close()


def requests(shares: Mapping[str, float], users: int, seed: int, host: str) -> Iterator[tuple[str, bytes]]:
    """Endless (path's name, request): users by Zipf's law like the generator's, paths by their shares."""
    rng = random.Random(seed)
    weights = catalogue.zipf_weights(users, _ZIPF)
    ids = [catalogue.person(n).user_id for n in range(users)]
    names = list(shares)
    while True:
        chosen = rng.choices(ids, cum_weights=weights, k=1024)
        kinds = rng.choices(names, weights=list(shares.values()), k=1024)
        for user, name in zip(chosen, kinds, strict=True):
            path = f"/v1/metrics/{name}" if name in _METRICS else f"/v1/users/{user}/{name}"
            yield name, f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


_METRICS = frozenset({"events", "genders", "gmv", "categories", "provinces", "uv", "funnel"})
_OF_USERS = frozenset({"timeline", "profile", "sessions", "purchases"})


def shares_of(text: str) -> dict[str, float]:
    """`timeline=1,profile=1` as shares. Raises `ValueError`."""
    shares = {}
    for part in text.split(","):
        name, _, weight = part.partition("=")
        if name not in _METRICS | _OF_USERS:
            raise ValueError(f"{name!r} is none of {', '.join(sorted(_METRICS | _OF_USERS))}")
        shares[name] = float(weight or 1)
    return shares


async def run(
    url: str,
    rate: float,
    seconds: float,
    warm: float,
    shares: Mapping[str, float],
    users: int,
    connections: int,
) -> Figures:
    """The figures of `seconds` at `rate`, after `warm` seconds that do not count."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    if not ip_address(host).is_loopback:
        raise ValueError(f"expected a loopback address, got {host!r}")
    load = Load(host, port)
    await load.connect(connections)
    clock = time.monotonic
    made = requests(shares, users, 1, f"{host}:{port}")
    start = clock() + 0.1
    first, last = int(warm * rate), int((warm + seconds) * rate)
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    timer = Timer(start, 1 / rate)
    n = 0

    def send() -> None:
        nonlocal n
        # Of what is long due only some at a time: answers must be taken as well.
        until = min(last, timer.passed(), n + _AT_ONCE)
        while n < until:
            name, head = next(made)
            load.put(Query(name, head, start + n / rate, counted=n >= first))
            n += 1
        if n >= last and not done.done():
            done.set_result(None)

    loop.add_reader(timer.fd, send)
    try:
        await done
    finally:
        loop.remove_reader(timer.fd)
        timer.close()
    load.figures.seconds = clock() - (start + warm)
    await load.end()
    return load.figures


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.query_load", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--warm", type=float, default=5.0)
    parser.add_argument("--mix", default="timeline=1,profile=1")
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=64)
    given = parser.parse_args()
    turns.short()  # it stands for other machines: what it is to measure must not hold it up
    # At half the CPU of asyncio's own: the load shares the cores with what it measures.
    loop = uvloop.new_event_loop()
    try:
        work = run(
            given.url,
            given.rate,
            given.seconds,
            given.warm,
            shares_of(given.mix),
            given.users,
            given.connections,
        )
        found = loop.run_until_complete(work)
    except (OSError, ValueError) as e:
        sys.exit(f"query_load: {e}")
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        loop.close()
    sys.stdout.buffer.write(
        orjson.dumps(
            {
                "ms": found.ms,
                "status": {str(k): n for k, n in found.status.items()},
                "late": found.late,
                "failed": found.failed,
                "seconds": found.seconds,
                "degraded": found.degraded,
            }
        )
    )


if __name__ == "__main__":
    main()
