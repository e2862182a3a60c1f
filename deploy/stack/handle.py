"""One server under the hand of a test or a drill: stop it, kill it, pause it, start it again."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from deploy.stack.errors import StackError
from deploy.stack.process import is_alive, read_stat, send, stop
from deploy.stack.servers.base import Server

if TYPE_CHECKING:
    from deploy.stack.stack import Stack

POLL_SECONDS = 0.2


class ServerHandle:
    """One server under a test's or a drill's hand."""

    def __init__(self, stack: Stack, server: Server) -> None:
        self.stack = stack
        self.server = server

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        record = self.stack.record(self.server)
        return record.pid if record and is_alive(record) else None

    @property
    def address(self) -> str:
        """host:port."""
        return self.server.address

    def start(self) -> None:
        """Start it and wait until it answers; nothing happens when it does."""
        self.stack.up([self.server.name])

    def stop(self) -> None:
        """End it in its own orderly way."""
        self.stack.down([self.server.name])

    def kill(self) -> None:
        """kill -9; what it started lives on, as after a real crash."""
        self._send(signal.SIGKILL)

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and answers nothing; returns when it has stopped."""
        self._send(signal.SIGSTOP)
        self.wait(lambda server: (stat := read_stat(server.pid or 0)) is None or stat.state in "Tt", 10)

    def resume(self) -> None:
        """SIGCONT."""
        self._send(signal.SIGCONT)

    def answers(self) -> bool:
        """Whether a real request is answered."""
        return self.server.answers()

    def wait(self, state: Callable[[ServerHandle], bool], seconds: float = 30.0) -> None:
        """Wait until ``state(self)`` holds. Raises StackError when it does not in time."""
        deadline = time.monotonic() + seconds
        while not state(self):
            if time.monotonic() > deadline:
                raise StackError(f"{self.server.name} did not reach the expected state in {seconds:.0f} s")
            time.sleep(POLL_SECONDS)

    def _send(self, number: signal.Signals) -> None:
        record = self.stack.record(self.server)
        if record is None or not is_alive(record):
            raise StackError(f"{self.server.name} does not run")
        send(record, number)
        if number is signal.SIGKILL:
            stop([record], seconds=10, first=number)
