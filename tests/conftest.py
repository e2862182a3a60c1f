"""What every suite shares: the real servers, started only when selected tests need them and `./tide test` allows it."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import settings

ALLOWED = os.environ.get("CLICKTIDE_TEST_SERVERS") == "yes"
CONTRACT = Path(__file__).resolve().parent / "contract"
_started: list[str] = []

# No deadlines: other suites and servers share the two cores, and a slow example is no wrong one.
settings.register_profile("full", deadline=None)
settings.register_profile("fast", deadline=None, max_examples=20)
settings.load_profile("full")


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if CONTRACT in item.path.parents:
            item.add_marker(pytest.mark.store)


def pytest_collection_finish(session: pytest.Session) -> None:
    # Workers' code, once imported, collects garbage rarely: here the sockets of hundreds of tests would be part of it.
    gc.set_threshold(700, 10, 10)
    if not ALLOWED or session.config.option.collectonly:
        return
    marks = {mark.name for item in session.items for mark in item.iter_markers()}
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")

    def say(line: str) -> None:
        if terminal is not None:
            terminal.write_line(f"servers: {line}")

    if "web" in marks:
        _have_chromium(say)
    if "service" in marks:
        _start_stack(say)


def _start_stack(say) -> None:
    """Provides what the real stack needs, and starts its Kafka: the contract suites share that, while SQL's and the stack's own tests
    start servers that they may break. The suites say themselves what they miss when this fails."""
    from deploy.stack.errors import StackError
    from deploy.stack.settings import settings_from
    from deploy.stack.stack import Stack

    stack = Stack(settings_from(os.environ), say)
    before = set(stack.running())
    try:
        stack.provide()
        stack.up(["kafka"])
    except (StackError, OSError) as e:
        say(f"the real stack cannot be had: {e}")
    _started.extend(set(stack.running()) - before)


def _have_chromium(say) -> None:
    if shutil.which("chromium") or os.geteuid() != 0 or not shutil.which("apt-get"):
        return
    say("installing Debian's chromium")
    install = ["apt-get", "install", "-y", "--no-install-recommends", "chromium"]
    for command in (install, ["apt-get", "update"], install):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        if command is install and done.returncode == 0:
            return
    say("chromium cannot be had")


def pytest_sessionfinish() -> None:
    if _started:
        from deploy.stack.settings import settings_from
        from deploy.stack.stack import Stack

        Stack(settings_from(os.environ)).down(_started)
        _started.clear()
