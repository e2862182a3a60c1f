"""The load of queries: GETs on a fixed schedule over kept connections, in a process of its own.

Open loop: query n is due at start + n / rate and its latency counts from then, however late it was sent or a connection was
free; a slow answer holds nobody up but itself. It ends when the answer is at the socket, by the kernel's clock: the load stands for many
clients on other machines, and that one program takes the answers one after the other is not the service's doing. How long until it
has taken them is told as well. `python -m bench.query_load` prints its figures as one JSON line.
"""

from __future__ import annotations

import argparse
import random
import select
import socket
import struct
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urlsplit

import orjson

from bench import catalogue
from bench.timer import Timer
from clicktide import turns

_LATE_S = 0.005
_GRACE_S = 5.0
_AT_ONCE = 64  # queries that are due
_ZIPF = 0.8  # as the generator draws its users
_BUFFER = 1 << 20
# Linux: the time at which what is read had come, in the first of three timespecs.
_SO_TIMESTAMPING, _RX_SOFTWARE, _SOFTWARE = 37, 1 << 3, 1 << 4
_STAMP = struct.Struct("=qq")
_ANCILLARY = socket.CMSG_SPACE(3 * _STAMP.size)


@dataclass(slots=True)
class Figures:
    """Latencies in ms, each from the query's due time: `ms` by path until the end of its answer had come, `taken_ms` until the
    load had it. `status` counts answers, `late` queries that were sent more than 5 ms after they were due, `failed` those that got
    no answer."""

    ms: dict[str, list[float]] = field(default_factory=dict)
    taken_ms: list[float] = field(default_factory=list)
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


class Connection:
    """One kept HTTP/1.1 connection with at most one query under way."""

    __slots__ = ("got", "query", "socket")

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING, _RX_SOFTWARE | _SOFTWARE)
        self.socket.setblocking(False)
        self.query: Query | None = None
        self.got = b""


class Load:
    """Sends queries over `connections` connections; not for more than one thread."""

    def __init__(self, host: str, port: int, connections: int) -> None:
        self.figures = Figures()
        self.epoll = select.epoll()
        self._all: dict[int, Connection] = {}
        for _ in range(connections):
            connection = Connection((host, port))
            self._all[connection.socket.fileno()] = connection
            self.epoll.register(connection.socket.fileno(), select.EPOLLIN)
        self._free = deque(self._all.values())
        self._waiting: deque[Query] = deque()
        self._under_way = 0
        self._buffer = bytearray(_BUFFER)

    def put(self, query: Query) -> None:
        """Sends the query when a connection is free."""
        self._under_way += 1
        if self._free:
            self._send(self._free.popleft(), query)
        else:
            self._waiting.append(query)

    def _send(self, connection: Connection, query: Query) -> None:
        if query.counted and time.monotonic() - query.due > _LATE_S:
            self.figures.late += 1
        connection.query = query
        try:
            connection.socket.send(query.head)
        except OSError:
            self._lost(connection)

    def readable(self, fd: int) -> None:
        """Takes what has come for the connection."""
        connection = self._all.get(fd)
        if connection is None:
            return
        try:
            size, ancillary, _, _ = connection.socket.recvmsg_into([self._buffer], _ANCILLARY)
        except BlockingIOError:
            return
        except OSError:
            size, ancillary = 0, []
        if not size or connection.query is None:
            self._lost(connection)
            return
        got = bytes(memoryview(self._buffer)[:size])
        if connection.got:
            got = connection.got + got
        if not complete(got):
            connection.got = got
            return
        connection.got = b""
        query, connection.query = connection.query, None
        self._under_way -= 1
        if query.counted:
            self._count(query, got, came(ancillary))
        if self._waiting:
            self._send(connection, self._waiting.popleft())
        else:
            self._free.append(connection)

    def _count(self, query: Query, got: bytes, age: float) -> None:
        figures, taken = self.figures, (time.monotonic() - query.due) * 1000
        figures.ms.setdefault(query.path, []).append(taken - age * 1000)
        figures.taken_ms.append(taken)
        status = int(got[9:12])
        figures.status[status] += 1
        figures.degraded += status == 200 and b'"degraded":[]' not in got

    def _lost(self, connection: Connection) -> None:
        if self._all.pop(connection.socket.fileno(), None) is None:
            return
        if connection in self._free:
            self._free.remove(connection)
        if connection.query is not None:
            self._under_way -= 1
            self.figures.failed += connection.query.counted
        connection.socket.close()

    def end(self) -> None:
        """Waits shortly for what is under way; what is then unanswered has failed."""
        until = time.monotonic() + _GRACE_S
        while self._under_way and self._all and (left := until - time.monotonic()) > 0:
            for fd, _ in self.epoll.poll(left):
                self.readable(fd)
        self.figures.failed += self._under_way
        self._under_way = 0
        for connection in self._all.values():
            connection.socket.close()
        self.epoll.close()


def complete(got: bytes) -> bool:
    """Whether it is a whole answer, its body included."""
    end = got.find(b"\r\n\r\n")
    if end < 0:
        return False
    head = got[:end].lower()
    at = head.find(b"content-length:")
    length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
    return len(got) >= end + 4 + length


def came(ancillary: list[tuple[int, int, bytes]]) -> float:
    """How long ago (s) the last of what was just read had come to the socket; 0 where the kernel does not say."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPING:
            seconds, nanoseconds = _STAMP.unpack_from(data)
            if seconds:
                age: float = time.time() - seconds - nanoseconds * 1e-9
                return max(0.0, age)
    return 0.0


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


def run(
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
    load = Load(host, port, connections)
    made = requests(shares, users, 1, f"{host}:{port}")
    start = time.monotonic() + 0.1
    first, last = int(warm * rate), int((warm + seconds) * rate)
    timer = Timer(start, 1 / rate)
    load.epoll.register(timer.fd, select.EPOLLIN)
    n = due = 0
    try:
        while n < last:
            # Of what is long due only some at a time: answers must be taken as well.
            for fd, _ in load.epoll.poll(0 if n < due else -1):
                if fd == timer.fd:
                    due = min(last, timer.passed())
                else:
                    load.readable(fd)
            until = min(due, n + _AT_ONCE)
            while n < until:
                name, head = next(made)
                load.put(Query(name, head, start + n / rate, counted=n >= first))
                n += 1
    finally:
        load.epoll.unregister(timer.fd)
        timer.close()
    load.figures.seconds = time.monotonic() - (start + warm)
    load.end()
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
    try:
        found = run(
            given.url,
            given.rate,
            given.seconds,
            given.warm,
            shares_of(given.mix),
            given.users,
            given.connections,
        )
    except (OSError, ValueError) as e:
        sys.exit(f"query_load: {e}")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.stdout.buffer.write(
        orjson.dumps(
            {
                "ms": found.ms,
                "taken_ms": found.taken_ms,
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
