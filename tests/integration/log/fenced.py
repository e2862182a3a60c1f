"""A way to a Kafka broker on which its answers about the cluster can be made to name no broker, as a broker's own do that has
come back and is not admitted by its controller yet: topics, but nobody to ask for them."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

METADATA, FLEXIBLE = 3, 9  # the request's key; the version from which on its lengths are varints


class Way:
    """Takes connections at `port` for the broker at `target`."""

    def __init__(self, target: tuple[str, int], port: int) -> None:
        self._target, self.port = target, port
        self._nobody = threading.Event()
        self.told = 0  # how often nobody was named
        self._sockets: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._serve, daemon=True).start()

    @contextmanager
    def naming_nobody(self) -> Iterator[None]:
        self._nobody.set()
        try:
            yield
        finally:
            self._nobody.clear()

    def cut(self) -> None:
        """Ends all connections; new ones are taken."""
        cut, self._sockets = self._sockets, []
        for s in cut:
            with suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
            s.close()

    def close(self) -> None:
        self._server.close()
        self.cut()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            try:
                broker = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            self._sockets += (client, broker)
            asked: dict[int, int] = {}
            for work in (self._ask, self._answer):
                threading.Thread(target=work, args=(client, broker, asked), daemon=True).start()

    def _ask(self, client: socket.socket, broker: socket.socket, asked: dict[int, int]) -> None:
        with suppress(OSError):
            while frame := _frame(client):
                key, version, correlation = struct.unpack(">hhi", frame[:8])
                if key == METADATA and version >= FLEXIBLE:
                    asked[correlation] = version
                broker.sendall(struct.pack(">i", len(frame)) + frame)
        _end(client, broker)

    def _answer(self, client: socket.socket, broker: socket.socket, asked: dict[int, int]) -> None:
        with suppress(OSError):
            while frame := _frame(broker):
                [correlation] = struct.unpack(">i", frame[:4])
                if asked.pop(correlation, None) is not None and self._nobody.is_set():
                    frame = _without_brokers(frame)
                    self.told += 1
                client.sendall(struct.pack(">i", len(frame)) + frame)
        _end(client, broker)


def _end(*sockets: socket.socket) -> None:
    for s in sockets:
        with suppress(OSError):
            s.shutdown(socket.SHUT_RDWR)


def _frame(s: socket.socket) -> bytes:
    """What follows a length; empty at the end."""
    size = _exactly(s, 4)
    return _exactly(s, struct.unpack(">i", size)[0]) if size else b""


def _exactly(s: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = s.recv(size - len(data))
        if not more:
            return b""
        data += more
    return data


def _without_brokers(frame: bytes) -> bytes:
    """Correlation, tags, throttling, and then the brokers: node, host, port, rack, tags each."""
    start = at = 4 + 1 + 4
    count, at = _varint(frame, at)
    for _ in range(count - 1):
        size, at = _varint(frame, at + 4)
        size, at = _varint(frame, at + size - 1 + 4)
        at += max(0, size - 1)
        tags, at = _varint(frame, at)
        assert tags == 0
    return frame[:start] + b"\x01" + frame[at:]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
