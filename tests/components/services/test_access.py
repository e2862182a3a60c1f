"""Keys and hostile callers, against the services as a process of their own."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import ssl
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
import websockets
from websockets.asyncio.client import connect

from services.access import keyfile
from services.access.keyfile import Key, Keys, Secret

pytestmark = pytest.mark.embedded
ROOT = Path(__file__).resolve().parents[3]


def event(i):
    return {
        "event_id": f"e{i}",
        "type": "view",
        "user_id": str(i % 7),
        "occurred_at": time.time_ns() // 1_000_000,
    }


class Ring:
    """A keys file with one key of each scope."""

    def __init__(self, path: Path) -> None:
        self.path, self.tokens = path, {}
        self.keys = {}
        for scope in keyfile.SCOPES:
            id_ = f"{scope:x<8}"
            self.tokens[scope] = keyfile.new_token(scope, id_)
            self.keys[scope] = Key(id_, scope, scope, 0, (Secret(keyfile.digest(self.tokens[scope]), 0),))
        self.save()

    def save(self) -> None:
        keyfile.write(self.path, Keys(keys=tuple(self.keys.values())))

    def bearer(self, scope):
        return {"authorization": f"Bearer {self.tokens[scope]}"}


@pytest.fixture
def ring(tmp_path, place):
    place.given["keys.file"] = str(tmp_path / "keys.json")
    return Ring(tmp_path / "keys.json")


def wait_ready(url, **more):
    deadline = time.monotonic() + 30
    while httpx.get(f"{url}/health/ready", **more).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_key_is_rotated_and_revoked_while_the_service_runs(ring, serve):
    with serve() as (_, url):
        wait_ready(url)

        def post(token):
            headers = {"authorization": f"Bearer {token}"}
            return httpx.post(f"{url}/v1/events", json=event(1), headers=headers).status_code

        def until(token, status):
            deadline = time.monotonic() + 30
            while post(token) != status:
                assert time.monotonic() < deadline
                time.sleep(0.05)

        assert post(ring.tokens["write"]) == 202
        env = {
            **os.environ,
            "TIDE_KEYS_FILE": str(ring.path),
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}",
        }

        def keys(*arguments):
            command = [sys.executable, "-m", "cli.main", "keys", *arguments]
            return subprocess.run(
                command, env=env, cwd=ROOT, capture_output=True, text=True, check=True
            ).stdout

        new = keys("rotate", "writexxx", "--overlap", "1h").strip()
        until(new, 202)
        assert post(ring.tokens["write"]) == 202
        keys("revoke", "writexxx")
        until(new, 401)
        assert post(ring.tokens["write"]) == 401
        assert post(ring.tokens["admin"]) == 202


def test_the_feed_takes_a_key_as_header_or_subprotocol_and_ends_when_it_is_revoked(ring, serve):
    with serve() as (_, url):
        feed = url.replace("http", "ws") + "/v1/live"
        read = f"tide.key.{ring.tokens['read']}"

        async def status(**more):
            try:
                async with connect(feed, **more):
                    return 101
            except websockets.InvalidStatus as e:
                return e.response.status_code

        async def watch():
            assert await status() == 401
            assert await status(subprotocols=["tide.live", f"tide.key.{ring.tokens['write']}"]) == 403
            assert await status(additional_headers=ring.bearer("read")) == 101
            async with connect(feed, subprotocols=["tide.live", read], origin=url) as ws:
                assert ws.subprotocol == "tide.live"
                await ws.recv()
                del ring.keys["read"]
                ring.save()
                async with asyncio.timeout(30):
                    with suppress(websockets.ConnectionClosedError):
                        async for _ in ws:
                            pass
                assert ws.close_code == 1008

        asyncio.run(watch())


def run(place, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "services", *arguments],
        env={**place.environment(), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        cwd=place.folder,
        check=False,
    )


def test_other_addresses_need_keys(place):
    done = run(place, "all", "--host", "0.0.0.0", "--port", "0")
    assert done.returncode == 1
    assert done.stderr.startswith(
        "services: setting http.host: '0.0.0.0' is not this machine's own, so keys are needed"
    )
    assert done.stderr.count("\n") == 1


def certificate(folder: Path) -> tuple[Path, Path]:
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    more = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command, *more], check=True, capture_output=True)
    return cert, key


def test_tls(place, ring, serve):
    cert, key = certificate(place.folder)
    place.given.update({"http.tls_cert": str(cert), "http.tls_key": str(key)})
    with serve() as (_, url):
        assert url.startswith("https://")
        trust = ssl.create_default_context(cafile=str(cert))
        wait_ready(url, verify=trust)
        answer = httpx.post(f"{url}/v1/events", json=event(1), headers=ring.bearer("write"), verify=trust)
        assert answer.status_code == 202
        with pytest.raises(httpx.HTTPError):
            httpx.get(url.replace("https", "http") + "/health/live")


def test_access_lines_are_json_and_hold_no_token(ring, serve):
    with serve("--access-log") as (process, url):
        wait_ready(url)
        httpx.post(f"{url}/v1/events?key={ring.tokens['write']}", json=event(1))
        process.terminate()
        assert process.wait(20) == 0
        text = process.stderr.read()
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    post = [x for x in lines if x["method"] == "POST"]
    assert [(x["route"], x["status"], x["key"]) for x in post] == [("/v1/events", 202, "writexxx")]
    assert not any(token in text for token in ring.tokens.values())


# Hostile callers


@contextmanager
def talking(url):
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as s:
        yield s


def said(s) -> int:
    """The status of the answer on a raw connection; 0 when it was closed without one."""
    data = b""
    while b"\r\n" not in data:
        try:
            more = s.recv(4096)
        except ConnectionResetError:
            return 0
        if not more:
            return 0
        data += more
    return int(data.split(b" ", 2)[1])


def test_slow_bodies_are_408_and_heads_that_never_end_are_closed(place, serve):
    place.given.update({"http.body_timeout_s": 0.5, "http.idle_timeout_s": 1})
    with serve() as (_, url):
        wait_ready(url)
        with talking(url) as chunked, talking(url) as plain, talking(url) as head:
            common = b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            chunked.sendall(common + b"Transfer-Encoding: chunked\r\n\r\n1\r\n[\r\n")
            plain.sendall(common + b"Content-Length: 100\r\n\r\n[")
            head.sendall(common)
            assert said(chunked) == 408
            assert said(plain) == 408
            assert said(head) in {0, 408}
        assert httpx.get(f"{url}/health/live").status_code == 200


@pytest.mark.parametrize(
    ("request_", "statuses"),
    [
        (
            b"GET /health/live HTTP/1.1\r\nHost: x\r\n"
            + b"".join(b"x-%d: y\r\n" % i for i in range(5000))
            + b"\r\n",
            {0, 400, 431},
        ),
        (b"GET /health/live HTTP/1.1\r\nHost: x\r\nx: " + b"y" * 1_000_000 + b"\r\n\r\n", {0, 400, 431}),
        (b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", {0, 400, 414, 431}),
        (b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", {0, 400}),
        (b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", {0, 400}),
        (
            b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
            {0, 400, 413},
        ),
        (b"POST /v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n", {0, 400}),
        (b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n", {413}),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", {0, 400}),
        (b"\x00" * 100 + b"\r\n\r\n", {0, 400}),
    ],
    ids=[
        "many headers",
        "long header",
        "long path",
        "two lengths",
        "negative length",
        "huge length",
        "bad chunks",
        "too long",
        "tls",
        "zeros",
    ],
)
def test_hostile_requests_get_a_4xx_or_are_closed(hostile_url, request_, statuses):
    with talking(hostile_url) as s:
        try:
            s.sendall(request_)
            s.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it was closed while it came: that is an answer too
        else:
            assert said(s) in statuses
    assert httpx.get(f"{hostile_url}/health/live").status_code == 200


@pytest.fixture(scope="module")
def hostile_url(tmp_path_factory):
    """One collector for all of them: each must leave it as it was."""
    folder = tmp_path_factory.mktemp("hostile")
    with collector(folder) as (_, url):
        yield url


@contextmanager
def collector(folder: Path, **settings: str):
    """A collector over an embedded log, without stores."""
    from clicktide import topics
    from clicktide.log import open_log
    from clicktide.settings import Settings

    path = str(folder / "log.sqlite")
    open_log(Settings({"log.path": path})).admin().create_topics({f"tide.{n}": 2 for n in topics.ALL})
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TIDE_")}
    env = {
        **kept,
        "TIDE_LOG_PATH": path,
        "TIDE_CONFIG": "none",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}",
    }
    command = [sys.executable, "-m", "services", "collector", "--port", "0"]
    process = subprocess.Popen(
        command, env={**env, **settings}, stdout=subprocess.PIPE, text=True, cwd=folder
    )
    try:
        url = process.stdout.readline().split()[-1]
        wait_ready(url)
        yield process, url
    finally:
        process.kill()
        process.wait(20)
        process.stdout.close()


def rss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    return int(next(x for x in lines if x.startswith("VmRSS")).split()[1]) / 1024


def test_a_thousand_idle_connections_shut_nobody_out(tmp_path):
    """bench/idle_connections.py does the same with ten thousand."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 3000:
        pytest.skip(f"only {hard} files may be open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 3000), hard))
    idle = []
    try:
        with collector(tmp_path) as (process, url):
            before = rss_mb(process.pid)
            host, port = url.removeprefix("http://").split(":")
            for i in range(1200):
                s = socket.create_connection((host, int(port)), timeout=30)
                idle.append(s)
                if i % 2:
                    s.sendall(b"POST /v1/events HTTP/1.1\r\nHost: x\r\n")
            for i in range(5):
                assert httpx.post(f"{url}/v1/events", json=event(i), timeout=30).status_code == 202
            assert rss_mb(process.pid) - before < 100
    finally:
        for s in idle:
            s.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
