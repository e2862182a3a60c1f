"""`./tide doctor`: what this machine has, what it lacks and what answers; one line a check, exit 1 if one fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from cli.context import DataDirOption, EnvOption, data_dir, running, settings_for
from clicktide.errors import ClicktideError
from clicktide.settings import Settings


class Finding(NamedTuple):
    """`state`: ok, lacks (something optional), FAIL."""

    state: str
    name: str
    detail: str


def main(env: EnvOption = "embedded", data_dir_given: DataDirOption = None) -> int:
    """Check Python, disk, ports, redis-server and Java, and whether the environment's log and stores answer."""
    failed = False
    for finding in findings(env, data_dir_given):
        failed |= finding.state == "FAIL"
        print(f"{finding.state:<5}  {finding.name:<12} {finding.detail}", flush=True)
    return 1 if failed else 0


def findings(env: str, data_dir_given: Path | None) -> Iterator[Finding]:
    """The checks, one at a time as they are done."""
    yield Finding("ok", "python", f"{sys.version.split()[0]} in {sys.prefix}")
    yield _disk(data_dir(data_dir_given))
    yield _redis_binary()
    yield _demo(data_dir_given)
    for name, why in (
        ("java", "for the real stack and sparse run; on Debian: apt-get install default-jre-headless"),
        ("lein", "for sparse run and submit; on Debian: apt-get install leiningen"),
        ("chromium", "for the page's tests; on Debian: apt-get install chromium"),
    ):
        found = shutil.which(name)
        yield Finding("ok", name, _version(name, found)) if found else Finding("lacks", name, why)
    try:
        settings = settings_for(env, data_dir_given)
    except ClicktideError as e:
        yield Finding("FAIL", "settings", str(e))
        return
    yield Finding("ok", "settings", f"environment {env}")
    if env == "embedded" and running(data_dir_given) is None:
        yield Finding("lacks", "services", "no demo runs on the data directory; ./tide demo starts one")
        return
    for name, check in (("log", _log), ("redis", _redis), ("sql", _sql)):
        yield _answers(name, check, settings)


def _disk(folder: Path) -> Finding:
    from deploy.embedded.hold import MINIMUM_FREE_MB, free_mb

    place = next(p for p in (folder, *folder.parents) if p.exists())
    if not place.is_dir():
        return Finding("FAIL", "disk", f"{place} is a file; expected a folder for the data")
    if not os.access(place, os.W_OK):
        return Finding("FAIL", "disk", f"{place} cannot be written to")
    free = free_mb(place)
    return Finding("ok" if free >= MINIMUM_FREE_MB else "FAIL", "disk", f"{free:,} MB free for {folder}")


def _redis_binary() -> Finding:
    from deploy.embedded import redis

    try:
        binary = redis.binary()
    except ClicktideError as e:
        return Finding("FAIL", "redis-server", str(e))
    version = redis.version_of(binary) or (0, 0)
    return Finding("ok", "redis-server", f"{version[0]}.{version[1]} at {binary}")


def _demo(data_dir_given: Path | None) -> Finding:
    from deploy.embedded.supervisor import check_port

    found = running(data_dir_given)
    if found is not None:
        return Finding("ok", "demo", f"runs, pid {found['pid']}, {found['urls']['page']}")
    try:
        check_port(8080)
    except ClicktideError as e:
        return Finding("lacks", "port", str(e))
    return Finding("ok", "port", "8080 is free for ./tide demo")


def _version(name: str, path: str) -> str:
    if name != "java":
        return path
    asked = subprocess.run([path, "-version"], capture_output=True, text=True, check=False)
    said = (asked.stderr or asked.stdout).splitlines()
    return said[0] if said else path


def _answers(name: str, check: Callable[[Settings], str], settings: Settings) -> Finding:
    try:
        return Finding("ok", name, check(settings))
    except Exception as e:
        return Finding("FAIL", name, " ".join(str(e).split()) or type(e).__name__)


def _log(settings: Settings) -> str:
    from clicktide.log import open_log

    admin = open_log(settings).admin()
    try:
        found = admin.topics()
    finally:
        admin.close()
    prefix = settings.text("topics.prefix")
    ours = sorted(name for name in found if name.startswith(prefix))
    return f"{settings.text('log.adapter')} answers, {len(ours)} topics {prefix}*"


def _redis(settings: Settings) -> str:
    from clicktide.redisstore.client import connect

    client = connect(settings)
    client.ping()
    return f"{settings.text('redis.url')} answers"


def _sql(settings: Settings) -> str:
    from clicktide.sql import SqlStore

    store = SqlStore(settings)
    for i in range(len(store.dsns)):
        store.ping(i)
    return f"{len(store.dsns)} servers answer"
