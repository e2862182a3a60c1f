"""The services as a process: starting, stopping, being killed, and what clients see of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest
import websockets
from websockets.asyncio.client import connect

from clicktide.log.port import TopicPartition

pytestmark = pytest.mark.embedded


def event(i):
    return {
        "event_id": f"e{i}",
        "type": "view",
        "user_id": str(i % 7),
        "occurred_at": time.time_ns() // 1_000_000,
    }


def stored(place):
    """The ids on the log."""
    consumer = place.log.consumer("test")
    partitions = [TopicPartition("tide.events", p) for p in (0, 1)]
    bounds = consumer.bounds(partitions)
    consumer.assign({p: start for p, (start, _) in bounds.items()})
    want, out = sum(end - start for start, end in bounds.values()), []
    while len(out) < want:
        for batch in consumer.poll(10_000, 1.0):
            out += [json.loads(v)["event_id"] for v in batch.values]
    consumer.close()
    return out


def wait_ready(url):
    deadline = time.monotonic() + 20
    while httpx.get(f"{url}/health/ready").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly_with_open_feeds_and_idle_connections(serve, number):
    with serve() as (process, url):
        wait_ready(url)

        async def watch():
            async with connect(url.replace("http", "ws") + "/v1/live") as feed:
                await feed.recv()
                process.send_signal(number)
                started = time.monotonic()
                try:
                    while True:
                        await feed.recv()
                except websockets.ConnectionClosed:
                    pass
                code = await asyncio.to_thread(process.wait, 10)
                return code, time.monotonic() - started

        idle = socket.create_connection(url.removeprefix("http://").split(":"))
        try:
            code, took = asyncio.run(watch())
        finally:
            idle.close()
        assert code == 0
        assert took < 5
        errors = process.stderr.read()
        assert "Traceback" not in errors


def test_every_202_is_on_the_log_after_kill_9_at_any_moment(place, serve):
    accepted, lock, stop = [], threading.Lock(), threading.Event()
    with serve() as (process, url):
        wait_ready(url)

        def client(n):
            with httpx.Client() as http:
                for i in range(n * 100_000, (n + 1) * 100_000):
                    if stop.is_set():
                        return
                    try:
                        answer = http.post(
                            f"{url}/v1/events", json=[event(i), {**event(i), "event_id": f"x{i}"}]
                        )
                    except httpx.HTTPError:
                        return
                    if answer.status_code == 202:
                        with lock:
                            accepted.extend((f"e{i}", f"x{i}"))

        threads = [threading.Thread(target=client, args=(n,)) for n in range(4)]
        for t in threads:
            t.start()
        deadline = time.monotonic() + 20
        while len(accepted) < 100 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
        stop.set()
        for t in threads:
            t.join(20)
        assert len(accepted) >= 100
        assert process.wait(10) == -signal.SIGKILL
    found = stored(place)
    assert set(accepted) <= set(found)
    assert len(found) == len(set(found))


def test_nothing_outlives_a_kill_9(serve):
    with serve() as (process, url):
        wait_ready(url)
        children = subprocess.run(
            ["ps", "--ppid", str(process.pid), "-o", "pid="], capture_output=True, text=True, check=False
        ).stdout.split()
        assert children == []
        process.kill()
        process.wait(10)
        host, port = url.removeprefix("http://").split(":")
        with pytest.raises(OSError), socket.create_connection((host, int(port)), timeout=2):
            pass


def run(place, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "services", *arguments],
        env={**place.environment(), **environment},
        capture_output=True,
        text=True,
        timeout=30,
        cwd=place.folder,
        check=False,
    )


def test_a_port_in_use_is_one_line(place):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run(place, "all", "--port", str(port))
    assert done.returncode == 1
    assert done.stderr == f"services: cannot listen on 127.0.0.1:{port}: it is in use\n"


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("TIDE_HTTP_PORT", "many", "services: setting http.port: expected a whole number, got 'many'\n"),
        ("TIDE_COLOUR", "red", "services: unknown setting in the environment: TIDE_COLOUR\n"),
        (
            "TIDE_LOG_PATH",
            "",
            "services: setting log.path: expected the path of the embedded log's file, got nothing\n",
        ),
        ("TIDE_REDIS_URL", "somewhere", None),
    ],
)
def test_bad_settings_are_one_line(place, variable, value, expected):
    done = run(place, "all", "--port", "0", **{variable: value})
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert expected is None or done.stderr == expected


def test_the_feed_is_one_message_a_second_the_same_for_all(serve):
    with serve() as (_, url):

        async def watch():
            async with (
                connect(url.replace("http", "ws") + "/v1/live") as one,
                connect(url.replace("http", "ws") + "/v1/live", origin=url) as two,
            ):
                first = [json.loads(await one.recv()) for _ in range(4)]
                second = [json.loads(await two.recv()) for _ in range(3)]
            with pytest.raises((websockets.ConnectionClosed, websockets.InvalidStatus)):
                async with connect(
                    url.replace("http", "ws") + "/v1/live", origin="http://evil.example"
                ) as other:
                    await other.recv()
            return first, second

        first, second = asyncio.run(watch())
        times = [m["as_of"] for m in first]
        # The first may be read late, but no later than the second is due.
        assert times[3] - times[0] > 1900
        assert {m["sent_at"] for m in second} & {m["sent_at"] for m in first}
        assert first[0]["events"]["view"] == 0
        assert first[0]["degraded"] == []
        assert len(first[0]["series"]) == 60


def test_slow_and_broken_clients_hold_up_nobody(serve):
    with serve() as (_, url):
        wait_ready(url)
        host, port = url.removeprefix("http://").split(":")
        slow = []
        try:
            for i in range(200):
                s = socket.create_connection((host, int(port)))
                s.sendall(
                    b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
                    + (b"\r\n{" if i % 2 else b"")
                )
                slow.append(s)
            started = time.monotonic()
            assert httpx.post(f"{url}/v1/events", json=event(1)).status_code == 202
            assert time.monotonic() - started < 5
        finally:
            for s in slow:
                s.close()


def test_chunked_bodies_larger_than_the_limit_are_413(serve):
    with serve() as (_, url):
        wait_ready(url)

        def endless():
            for _ in range(3000):
                yield b" " * 1024

        answer = httpx.post(
            f"{url}/v1/events", content=endless(), headers={"content-type": "application/json"}
        )
        assert answer.status_code == 413
        assert httpx.get(f"{url}/health/live").status_code == 200


def test_accepted_events_are_kept_when_it_is_told_to_stop_under_load(place, serve):
    with serve() as (process, url):
        wait_ready(url)

        async def load():
            accepted = []

            async def client(http, n):
                for i in range(n * 10_000, n * 10_000 + 10_000):
                    try:
                        answer = await http.post(f"{url}/v1/events", json=event(i))
                    except httpx.HTTPError:
                        return
                    if answer.status_code == 202:
                        accepted.append(f"e{i}")
                        if len(accepted) == 60:
                            os.kill(process.pid, signal.SIGTERM)

            async with httpx.AsyncClient(timeout=10) as http:
                await asyncio.gather(*(client(http, n) for n in range(8)))
            return accepted

        accepted = asyncio.run(load())
        assert process.wait(15) == 0
    assert len(accepted) >= 60
    assert set(accepted) <= set(stored(place))
