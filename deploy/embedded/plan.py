"""Which processes make the embedded Clicktide, with which commands: pure values from places and settings."""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from clicktide.settings import ENV_PREFIX, Settings
from deploy.embedded import redis
from deploy.embedded.child import Child
from deploy.embedded.places import Places
from deploy.priority import GIVE_WAY_MORE

ROOT = Path(__file__).resolve().parent.parent.parent
TOPOLOGIES = ("events", "redrive")
HOST = "127.0.0.1"


# What the demo's own traffic sends with, where the collector wants a key.
WRITE_KEY = "TIDE_WRITE_KEY"


def environment(
    places: Places, settings: Settings, environ: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """What a child process gets: this checkout's imports, and every given setting as a `TIDE_*` variable."""
    kept = {
        k: v
        for k, v in environ.items()
        if k == WRITE_KEY or (not k.startswith(ENV_PREFIX) and k != "PYTHONHOME")
    }
    given = {
        k.replace("tide.", ENV_PREFIX, 1).replace(".", "_").upper(): v for k, v in settings.options().items()
    }
    return {
        **kept,
        **{k: _text(v) for k, v in given.items()},
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), environ.get("PATH", os.defpath)]),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]),
        "PYTHONUNBUFFERED": "1",
        "TIDE_ENV": "embedded",
        "TIDE_DATA_DIR": str(places.root),
        # A handful of threads in each of a dozen small processes: one arena each would be most of their memory.
        "MALLOC_ARENA_MAX": "2",
    }


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def redis_server(places: Places, binary: str, environ: Mapping[str, str]) -> Child:
    socket = places.socket
    return Child(
        name="redis",
        command=[binary, str(places.redis / "redis.conf")],
        log=places.logs / "redis.log",
        environ=environ,
        ready=lambda: redis.answers(socket),
        short_turns=True,
    )


def services(places: Places, port: int, environ: Mapping[str, str]) -> Child:
    return Child(
        name="services",
        command=[sys.executable, "-P", "-m", "services", "all", "--port", str(port)],
        log=places.logs / "services.log",
        environ=environ,
        ready=lambda: http_ok(f"http://{HOST}:{port}/health/ready"),
        grace_s=12.0,
    )


def topology(places: Places, name: str, settings: Settings, environ: Mapping[str, str]) -> Child:
    """One topology on localstorm; ready once it says in its statistics what runs."""
    stats = places.stats(name)
    options = storm_options(settings)
    command = [sys.executable, "-P", "-m", "localstorm", "-n", name, "--project", str(ROOT), "-e", "embedded"]
    command += [
        "-t",
        "0",
        "--quiet",
        "--stats-file",
        str(stats),
        "--log-dir",
        str(places.logs / name),
        *options,
    ]
    return Child(
        name=name,
        command=command,
        log=places.logs / f"{name}.log",
        environ=environ,
        ready=newer_file(stats),
        grace_s=15.0,
        nice=GIVE_WAY_MORE,
    )


def storm_options(settings: Settings) -> list[str]:
    """Every given setting as `-o KEY=VALUE`, whose value is YAML: JSON is the part of it without surprises."""
    return [word for k, v in settings.options().items() for word in ("-o", f"{k}={json.dumps(v)}")]


def newer_file(path: Path) -> Callable[[], bool]:
    """Whether `path` is there, having been written after this call."""
    before = _mtime(path)
    return lambda: _mtime(path) > before


def _mtime(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def http_ok(url: str, timeout_s: float = 1.0) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError, urllib.error.URLError):
        return False


def urls(port: int) -> dict[str, str]:
    base = f"http://{HOST}:{port}"
    return {
        "page": f"{base}/",
        "docs": f"{base}/docs",
        "collector": base,
        "query": base,
        "status": f"{base}/v1/status",
    }
