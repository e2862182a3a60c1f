"""A stack of the tests' own: its own folder and ports, so that nobody's running stack is touched."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from deploy.stack.errors import StackError
from deploy.stack.settings import PROJECT, StackSettings, settings_from
from deploy.stack.stack import Stack

PORTS = (
    "KAFKA_PORT",
    "KAFKA_CONTROLLER_PORT",
    "REDIS_PORT",
    "MARIADB_1_PORT",
    "MARIADB_2_PORT",
    "ZOOKEEPER_PORT",
    "NIMBUS_PORT",
    "SUPERVISOR_PORT",
    "WORKER_PORT",
)
SLOTS = 4
Command = Callable[..., "subprocess.CompletedProcess[str]"]


def free_base(count: int) -> int:
    """The first of ``count`` neighbouring free ports, below those that the system hands out."""
    for base in range(20000, 32000, count):
        try:
            for port in range(base, base + count):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return base
    raise RuntimeError("no free ports")


@pytest.fixture(scope="session")
def stack_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    base = free_base(len(PORTS) + SLOTS)
    variables = {f"TIDE_STACK_{name}": str(base + index) for index, name in enumerate(PORTS)}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TIDE_STACK_")}
    return {
        **kept,
        **variables,
        "TIDE_STACK_WORKER_SLOTS": str(SLOTS),
        "TIDE_STACK_HOME": str(tmp_path_factory.mktemp("stack") / "home"),
        "STREAMPARSE_NIMBUS": f"127.0.0.1:{variables['TIDE_STACK_NIMBUS_PORT']}",
        "PYTHONPATH": str(PROJECT),
    }


@pytest.fixture(scope="session")
def stack_settings(stack_environment: dict[str, str]) -> StackSettings:
    return settings_from(stack_environment)


@pytest.fixture(scope="session")
def whole_stack(stack_settings: StackSettings) -> Iterator[Stack]:
    stack = Stack(stack_settings, lambda line: print(line, file=sys.stderr))
    try:
        stack.up()
    except StackError as error:
        stack.down()
        if os.environ.get("CI") == "true" or not str(error).startswith(("not installed", "Maven")):
            raise
        pytest.skip(str(error))
    yield stack
    stack.down()
    shutil.rmtree(stack_settings.home, ignore_errors=True)


@pytest.fixture
def stack(whole_stack: Stack) -> Stack:
    """Everything answers, whatever the test before did."""
    whole_stack.up()
    return whole_stack


@pytest.fixture
def tide(stack_environment: dict[str, str]) -> Command:
    """`tide stack ...` and `tide sparse ...` as a user types them."""

    def run(
        module: str,
        *arguments: str,
        cwd: Path = PROJECT,
        seconds: float = 600,
        more: Mapping[str, str] = MappingProxyType({}),
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", f"cli.{module}", *arguments],
            cwd=cwd,
            env={**stack_environment, **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    return run


@pytest.fixture
def storm(stack_environment: dict[str, str]) -> Command:
    """Our `storm` command."""

    def run(*arguments: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(PROJECT / "deploy" / "storm" / "bin" / "storm"), *arguments],
            env=stack_environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    return run


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small streamparse project with the topologies `counting` and `tally`."""
    return Path(shutil.copytree(Path(__file__).with_name("project"), tmp_path / "project"))
