"""Idle connections, by hand: `python -m bench.idle_connections [--connections 10000]`.

Starts a collector over an embedded log, opens so many connections (a third silent, a third with half a head, a third with half a
body), and says what that costs in memory and what one more client sees meanwhile. Prints one line a finding; exits 1 when the
client was not served.
"""

from __future__ import annotations

import argparse
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from clicktide import topics
from clicktide.log import open_log
from clicktide.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
HEAD = b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
SENT = (b"", HEAD, HEAD + b"Content-Length: 100\r\n\r\n{")
REQUESTS = 50


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.idle_connections")
    parser.add_argument("--connections", type=int, default=10_000)
    count = parser.parse_args(arguments).connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count + 500:
        print(f"idle_connections: the system allows {hard} open files (ulimit -Hn)", file=sys.stderr)
        return 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + 500), hard))
    with tempfile.TemporaryDirectory() as folder:
        process, url = started(Path(folder))
        try:
            return measured(process.pid, url, count)
        finally:
            process.kill()
            process.wait(20)


def started(folder: Path) -> tuple[subprocess.Popen[str], str]:
    path = str(folder / "log.sqlite")
    open_log(Settings({"log.path": path})).admin().create_topics({f"tide.{n}": 2 for n in topics.ALL})
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TIDE_")}
    own = {"TIDE_LOG_PATH": path, "TIDE_CONFIG": "none", "TIDE_HTTP_BODY_TIMEOUT_S": "600"}
    python_path = f"{ROOT}{os.pathsep}{ROOT / 'src'}"
    process = subprocess.Popen(
        [sys.executable, "-m", "services", "collector", "--port", "0"],
        env={**kept, **own, "PYTHONPATH": python_path},
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
    )
    assert process.stdout is not None
    return process, process.stdout.readline().split()[-1]


def measured(pid: int, url: str, count: int) -> int:
    host, port = url.removeprefix("http://").split(":")
    before = rss_mb(pid)
    idle: list[socket.socket] = []
    began = time.monotonic()
    for i in range(count):
        connection = socket.create_connection((host, int(port)), timeout=60)
        connection.sendall(SENT[i % len(SENT)])
        idle.append(connection)
    print(f"{count} connections open after {time.monotonic() - began:.1f} s")
    took = []
    with httpx.Client(timeout=30) as client:
        for i in range(REQUESTS):
            at = time.monotonic()
            event = {"event_id": str(i), "type": "view", "user_id": "1", "occurred_at": 1000}
            answer = client.post(f"{url}/v1/events", json=event)
            if answer.status_code != 202:
                print(f"one more client was answered {answer.status_code}: {answer.text[:200]}")
                return 1
            took.append(time.monotonic() - at)
    took.sort()
    print(
        f"one more client: {REQUESTS} of {REQUESTS} accepted, median {took[REQUESTS // 2] * 1000:.1f} ms, slowest {took[-1] * 1000:.1f} ms"
    )
    after = rss_mb(pid)
    print(
        f"memory: {before:.0f} MB before, {after:.0f} MB with them, {(after - before) * 1024 / count:.1f} KB a connection"
    )
    for connection in idle:
        connection.close()
    return 0


def rss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    return int(next(x for x in lines if x.startswith("VmRSS")).split()[1]) / 1024


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
