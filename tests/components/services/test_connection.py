"""Connections, byte by byte: what of HTTP/1.1 the services keep to, and where they end a connection."""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest
from components.services.test_access import talking
from components.services.test_process import wait_ready

pytestmark = pytest.mark.embedded


def to_the_end(s) -> bytes:
    data = b""
    try:
        while more := s.recv(65536):
            data += more
    except ConnectionResetError:
        pass  # it was closed with something of ours unread
    return data


def answers(data: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """Status, headers and body of the answers, one after the other; bodies have a length."""
    out = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}
        size = int(headers.get("content-length", 0))
        out.append((int(first.split()[1]), headers, data[:size]))
        data = data[size:]
    return out


def get(path, *headers, version="1.1", method="GET"):
    lines = [f"{method} {path} HTTP/{version}", "Host: x", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


CLOSE = "Connection: close"


@pytest.fixture
def filled(place):
    """A user with three events."""
    now = time.time_ns() // 1_000_000
    events = [
        {"event_id": f"e{i}", "type": "view", "user_id": "u1", "occurred_at": now - i} for i in range(3)
    ]
    rows = place.rows(events)
    place.apply(rows)
    place.persist(rows)
    return place


def asked(url, *requests):
    with talking(url) as s:
        s.sendall(b"".join(requests))
        return answers(to_the_end(s))


def test_pipelined_requests_are_answered_in_their_order_whichever_way_they_go(filled, serve):
    paths = [
        "/v1/users/u1/profile",
        "/health/live",
        "/v1/users/u1/timeline",
        "/nothing",
        "/v1/users/none/profile",
    ]
    with serve() as (_, url):
        wait_ready(url)
        alone = [asked(url, get(p, CLOSE))[0] for p in paths]
        got = asked(url, *[get(p) for p in paths * 20], get("/health/live", CLOSE))
    assert [s for s, _, _ in alone] == [200, 200, 200, 404, 404]
    assert [s for s, _, _ in got] == [200, 200, 200, 404, 404] * 20 + [200]
    profile, timeline = json.loads(got[0][2]), json.loads(got[2][2])
    assert profile["events"] == len(timeline["events"]) == 3
    assert json.loads(got[4][2])["code"] == "unknown_user"
    assert all(len({tuple(sorted(h)) for _, h, _ in got[i:100:5]}) == 1 for i in range(5))


def test_what_a_client_reads_of_the_connection(filled, serve):
    with serve() as (_, url):
        wait_ready(url)
        [(status, headers, body)] = asked(url, get("/v1/users/u1/profile", CLOSE))
        assert (status, headers["connection"]) == (200, "close")
        assert {"date", "x-request-id", "cache-control", "content-type"} <= set(headers)
        # The head of a GET, and nothing behind it; the next answer comes right after.
        with talking(url) as s:
            s.sendall(get("/v1/users/u1/profile", method="HEAD") + get("/health/live", CLOSE))
            head, _, rest = to_the_end(s).partition(b"\r\n\r\n")
        assert f"content-length: {len(body)}".encode() in head.lower()
        assert [a[0] for a in answers(rest)] == [200]
        # HTTP/1.0 ends with its answer.
        assert [a[0] for a in asked(url, get("/v1/users/u1/profile", version="1.0"))] == [200]
        for target in ("http://x/v1/users/u1/profile?", "/v1/users/%75%31/profile"):
            [(status, _, other)] = asked(url, get(target, CLOSE))
            assert (status, json.loads(other)["user_id"]) == (200, "u1")
        [(status, _, body)] = asked(url, get("/v1/users/%ff%fe/profile", CLOSE))
        assert (status, json.loads(body)["code"]) == (400, "bad_parameter")


def test_bodies_in_pieces_and_on_demand(place, serve):
    event = json.dumps(
        {"event_id": "e1", "type": "view", "user_id": "u", "occurred_at": time.time_ns() // 1_000_000}
    ).encode()
    common = b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with serve() as (_, url):
        wait_ready(url)
        with talking(url) as s:
            s.sendall(common + b"Transfer-Encoding: chunked\r\n\r\n")
            for i in range(0, len(event), 7):
                part = event[i : i + 7]
                s.sendall(b"%x\r\n%s\r\n" % (len(part), part))
            s.sendall(b"0\r\n\r\n")
            assert s.recv(65536).startswith(b"HTTP/1.1 202")
            s.sendall(common + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(event))
            assert s.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
            s.sendall(event)
            assert s.recv(65536).startswith(b"HTTP/1.1 202")


def test_heads_without_end_are_431_also_behind_a_request_that_is_under_way(filled, serve):
    common = b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    filled.given["http.linger_ms"] = 1500.0  # an upload is under way for so long
    event = json.dumps(
        {"event_id": "e1", "type": "view", "user_id": "u", "occurred_at": time.time_ns() // 1_000_000}
    )
    with serve() as (_, url):
        wait_ready(url)
        for head in (
            get("/v1/users/u1/profile", *(f"x-{i}: y" for i in range(300))),
            get("/v1/users/u1/profile", "x: " + "y" * 70_000),
            get("/" + "a" * 70_000),
        ):
            with talking(url) as s:
                s.sendall(head)
                [(status, _, body)] = answers(to_the_end(s))
            assert (status, json.loads(body)["code"]) == (431, "head_too_large")
        with talking(url) as s:
            s.sendall(common + f"Content-Length: {len(event)}\r\n\r\n{event}GET / HTTP/1.1\r\n".encode())
            for _ in range(20):
                try:
                    s.sendall(b"x: " + b"y" * 8000 + b"\r\n")
                except OSError:
                    break
            # Its answer and then the end; whoever still sends then may miss the answer.
            assert [a[0] for a in answers(to_the_end(s))] in ([202], [])
        assert httpx.get(f"{url}/health/live").status_code == 200


def taken(url) -> None:
    """When this is answered, what was sent before on other connections has come to the service."""
    assert httpx.get(f"{url}/health/live").status_code == 200


def test_a_head_in_pieces_may_be_as_large_as_one_that_comes_at_once(filled, serve):
    with serve() as (_, url):
        wait_ready(url)
        for size, status in ((40_000, 200), (70_000, 431)):
            head = get("/v1/users/u1/profile", CLOSE, "x: " + "y" * size)
            with talking(url) as s:
                for piece in (head[: size - 5_000], head[size - 5_000 :]):
                    s.sendall(piece)
                    taken(url)
                assert [a[0] for a in answers(to_the_end(s))] == [status]


def test_many_small_heads_at_once_are_none_that_is_too_large(filled, serve):
    one = get("/v1/users/u1/profile", "x: " + "y" * 100)
    many = one * 1500
    with serve() as (_, url):
        wait_ready(url)
        with talking(url) as s:
            got = bytearray()
            reader = threading.Thread(target=lambda: got.extend(to_the_end(s)))
            s.sendall(many[:10])
            taken(url)
            reader.start()
            s.sendall(many[10:-10])
            taken(url)
            s.sendall(many[-10:] + get("/v1/users/u1/profile", CLOSE))
            reader.join(60)
        assert [a[0] for a in answers(bytes(got))] == [200] * 1501


def test_nonsense_is_400_and_behind_a_good_request_the_end(filled, serve):
    with serve() as (_, url):
        wait_ready(url)
        [(status, _, body)] = asked(url, b"nonsense\r\n\r\n")
        assert (status, json.loads(body)["code"]) == (400, "bad_request")
        got = asked(url, get("/v1/users/u1/profile"), b"nonsense\r\n\r\n")
        assert [a[0] for a in got] in ([200], [200, 400])
        common = b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        got = asked(url, common + b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n")
        assert [(s, json.loads(b)["code"]) for s, _, b in got] == [(400, "bad_request")]


def test_silent_connections_end_and_busy_ones_do_not(filled, serve):
    filled.given["http.idle_timeout_s"] = 3
    with serve() as (_, url):
        wait_ready(url)
        with talking(url) as silent, talking(url) as begun, talking(url) as busy:
            begun.sendall(b"GET / HT")
            # It goes on for longer than the others, which came before it, may be silent.
            until = time.monotonic() + 30
            while time.monotonic() < until:
                busy.sendall(get("/v1/users/u1/profile"))
                assert busy.recv(65536).startswith(b"HTTP/1.1 200")
                if len(select.select([silent, begun], [], [], 0)[0]) == 2:
                    until = min(until, time.monotonic() + 0.5)
            assert to_the_end(silent) == b""
            assert to_the_end(begun) == b""


def test_those_beyond_the_bound_are_told_and_those_within_are_served(filled, serve):
    filled.given["http.max_connections"] = 5
    with serve() as (_, url):
        with talking(url) as first:
            first.sendall(get("/v1/users/u1/profile"))
            assert first.recv(65536).startswith(b"HTTP/1.1 200")
            others = [socket.create_connection(first.getpeername()) for _ in range(4)]
            try:
                [(status, headers, body)] = asked(url, get("/v1/users/u1/profile"))
                assert (status, json.loads(body)["code"]) == (503, "too_many_connections")
                assert headers["connection"] == "close"
                assert int(headers["retry-after"]) >= 1
                first.sendall(get("/v1/users/u1/profile"))
                assert first.recv(65536).startswith(b"HTTP/1.1 200")
            finally:
                for s in others:
                    s.close()
            deadline = time.monotonic() + 20
            while httpx.get(f"{url}/health/live").status_code != 200:
                assert time.monotonic() < deadline
        assert httpx.get(f"{url}/health/live").status_code == 200


def test_a_client_that_does_not_read_holds_up_itself_only(filled, serve):
    """Its answers are not made while it does not take those before."""
    with serve() as (process, url):
        wait_ready(url)
        with talking(url) as s:
            s.settimeout(3)
            sent = 0
            try:
                while sent < 40_000_000:
                    sent += s.send(get("/v1/users/u1/timeline") * 500)
            except TimeoutError:
                pass
            assert sent < 40_000_000, "the service stopped to read"
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            status = [line for line in lines if "VmRSS" in line]
            assert int(status[0].split()[1]) < 400_000
            assert httpx.get(f"{url}/v1/users/u1/profile").status_code == 200
