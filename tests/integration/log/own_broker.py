"""A Kafka broker of one's own, for tests that stop, kill and restart it: own data, own free ports, ended by its pid."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from ports import free_ports

from clicktide.errors import LogUnavailable
from deploy.stack.jars import ensure_jars
from deploy.stack.servers.base import silent
from deploy.stack.servers.kafka import Kafka
from deploy.stack.settings import StackSettings, cache_folder

START_S = BACK_S = 90.0


def need_java() -> None:
    """Skips the test where a broker of one's own cannot run; fails it in CI."""
    if shutil.which("java") is None:
        missing = "no java for a Kafka of one's own"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)


def again(work: Callable[[], object], seconds: float = BACK_S) -> object:
    """Do it until it succeeds, as every caller of the port does."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return work()
        except LogUnavailable:
            assert time.monotonic() < deadline, "it does not recover"
            time.sleep(0.1)


class OwnBroker:
    """The broker in `folder`. `start` waits until it answers. `more` properties win over the stack's."""

    def __init__(self, folder: Path, more: Mapping[str, str] | None = None) -> None:
        self._more = more or {}
        port, controller_port = free_ports(2)
        self._settings = settings = StackSettings(
            home=folder,
            cache=cache_folder(os.environ),
            kafka_port=port,
            kafka_controller_port=controller_port,
            kafka_heap_mb=256,
        )
        ensure_jars(settings, "kafka", silent)
        self._kafka = Kafka(settings)
        self._out = folder / "kafka.out"
        self._process: subprocess.Popen[bytes] | None = None

    def listener(self, protocol: str, port: int) -> None:
        """Another listener, `SECURE`, beside the plain one; to be called before `start`."""
        plain = f"CLIENT://{self.address}"
        own = f"SECURE://127.0.0.1:{port}"
        controller = f"CONTROLLER://127.0.0.1:{self._settings.kafka_controller_port}"
        self._more = {
            **self._more,
            "listeners": f"{plain},{controller},{own}",
            "advertised.listeners": f"{plain},{own}",
            "listener.security.protocol.map": f"CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:{protocol}",
        }

    @property
    def address(self) -> str:
        return self._kafka.address

    def start(self) -> None:
        self._kafka.prepare()
        with self._kafka.configuration.open("a") as properties:
            properties.writelines(f"{name}={value}\n" for name, value in self._more.items())
        with self._out.open("ab") as out:
            self._process = subprocess.Popen(
                self._kafka.argv(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=self._kafka.environment(),
            )
        deadline = time.monotonic() + START_S
        while not self._kafka.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"Kafka did not start: {self._out.read_text()[-2000:]}")
            time.sleep(0.2)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        if number == signal.SIGSTOP:  # a JVM's threads stop one by one
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def kill(self) -> None:
        """kill -9, also of a broker that is stopped; a second time does nothing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
