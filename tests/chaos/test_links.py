"""The proxy of the links: what each mode does to bytes on their way, over real sockets."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from bench.chaos import proxy
from bench.chaos.components import free_ports
from bench.chaos.links import Links
from bench.chaos.plan import CUT, DELAY, HOLE, TRICKLE
from clicktide.errors import ClicktideError

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(90)]


class Echo:
    """A server that sends back what it gets, after its name."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                link, _ = self.listener.accept()
                threading.Thread(target=self._answer, args=(link,), daemon=True).start()

    def _answer(self, link: socket.socket) -> None:
        with contextlib.suppress(OSError), link:
            link.sendall(self.name)
            while data := link.recv(65536):
                link.sendall(data)


@pytest.fixture
def echo() -> Iterator[Echo]:
    found = Echo(b"1")
    yield found
    found.listener.close()


@pytest.fixture
def links(echo, tmp_path) -> Iterator[Links]:
    (port,) = free_ports(1)
    found = Links({"store": (f"tcp:{port}", f"tcp:{echo.port}")}, tmp_path / "proxy.log")
    found.port = port
    yield found
    found.close()


def call(links: Links) -> socket.socket:
    link = socket.create_connection(("127.0.0.1", links.port), timeout=30)
    assert link.recv(1) == b"1"
    return link


def received(link: socket.socket, count: int) -> bytes:
    out = b""
    while len(out) < count:
        data = link.recv(count - len(out))
        assert data, "the connection ended early"
        out += data
    return out


def test_an_open_link_moves_everything_in_order(links):
    sent = bytes(range(256)) * 4000
    with call(links) as link:
        threading.Thread(target=link.sendall, args=(sent,), daemon=True).start()
        assert received(link, len(sent)) == sent


def test_an_end_of_one_side_reaches_the_other(links):
    with call(links) as link:
        link.sendall(b"last")
        link.shutdown(socket.SHUT_WR)
        assert received(link, 4) == b"last"
        assert link.recv(1) == b""


def test_a_cut_resets_what_is_there_and_what_comes(links):
    with call(links) as link:
        links.turn("store", CUT)
        with pytest.raises(ConnectionResetError):
            link.recv(1)
    with (
        contextlib.suppress(ConnectionResetError),
        socket.create_connection(("127.0.0.1", links.port), 30) as link,
    ):
        assert link.recv(1) == b""
    links.turn("store", proxy.OPEN)
    call(links).close()


def test_a_hole_moves_nothing_and_then_all(links):
    with call(links) as link, socket.create_connection(("127.0.0.1", links.port), timeout=30):
        links.turn("store", HOLE)
        link.sendall(b"held")
        link.settimeout(0.3)
        with pytest.raises(TimeoutError):
            link.recv(1)
        with socket.create_connection(("127.0.0.1", links.port), timeout=0.3) as late:
            with pytest.raises(TimeoutError):
                late.recv(1)
            links.turn("store", proxy.OPEN)
            late.settimeout(30)
            assert late.recv(1) == b"1"
        link.settimeout(30)
        assert received(link, 4) == b"held"


def test_a_delay_is_at_least_so_long(links):
    with call(links) as link:
        links.turn("store", DELAY)
        began = time.monotonic()
        link.sendall(b"x")
        assert received(link, 1) == b"x"
        assert time.monotonic() - began >= 2 * proxy.DELAY_S * 0.99


def test_a_trickle_is_slow_until_it_is_over(links):
    pieces = 6
    sent = b"y" * (proxy.TRICKLE_BYTES * pieces)
    with call(links) as link:
        links.turn("store", TRICKLE)
        began = time.monotonic()
        link.sendall(sent)
        assert received(link, len(sent)) == sent
        assert time.monotonic() - began >= (pieces - 1) * proxy.TRICKLE_EVERY_S * 0.99
        links.turn("store", proxy.OPEN)
        link.sendall(sent)
        assert received(link, len(sent)) == sent


def test_a_link_that_is_pointed_elsewhere_loses_what_it_held(links):
    other = Echo(b"2")
    with call(links) as link:
        links.turn("store", HOLE)
        link.sendall(b"lost")
        links.point("store", f"tcp:{other.port}")
        with pytest.raises(ConnectionResetError):
            link.recv(1)
    with socket.create_connection(("127.0.0.1", links.port), timeout=30) as link:
        assert link.recv(1) == b"2"
    other.listener.close()


def test_unknown_orders_are_refused(links):
    with pytest.raises(ClicktideError, match="unknown mode 'flood'"):
        links.turn("store", "flood")
    with pytest.raises(ClicktideError, match="nobody"):
        links.turn("nobody", CUT)
    call(links).close()


def test_the_proxy_ends_with_its_caller():
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "bench.chaos.proxy", "{}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with child:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == b"ok\n"
        child.stdin.close()
        assert child.wait(30) == 0
