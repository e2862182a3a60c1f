"""What the stack knows of any server.

Nothing here starts anything: a server says how it is laid out, started, asked and stopped, and
deploy.stack.stack does it.
"""

from __future__ import annotations

import os
import signal
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from deploy.stack.process import ProcessRecord
from deploy.stack.settings import LOOPBACK, StackSettings

Say = Callable[[str], None]
"""Gets one line of progress at a time."""


def silent(line: str) -> None:
    """Progress that nobody reads."""


class Server(ABC):
    """One server of the stack, by name."""

    name: str
    group: ClassVar[str]
    after: ClassVar[tuple[str, ...]] = ()
    """Names of servers that have to answer before this one is started."""
    jars: ClassVar[str | None] = None
    """The jar set that it runs from, see deploy.stack.jars."""
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    stop_seconds: ClassVar[float] = 30.0
    nice: ClassVar[int] = 0
    """By so many steps of nice it gives way, see deploy.priority."""

    def __init__(self, name: str, port: int, settings: StackSettings) -> None:
        self.name = name
        self.port = port
        self.settings = settings

    @property
    def address(self) -> str:
        """host:port that clients use."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def folder(self) -> Path:
        """Data and rendered configuration."""
        return self.settings.folder(self.name)

    @property
    def out(self) -> Path:
        """What the process prints, including what it says before its own log opens."""
        return self.settings.folder("logs", f"{self.name}.out")

    @property
    def log(self) -> Path:
        """The server's own log."""
        return self.settings.folder("logs", f"{self.name}.log")

    def ports(self) -> dict[str, int]:
        """Every port that it listens on, under the name of the setting that moves it."""
        return {f"{self.name.replace('-', '_')}_port": self.port}

    @abstractmethod
    def prepare(self) -> None:
        """Render the configuration and make the data folder; repeating it changes nothing of the data."""

    @abstractmethod
    def argv(self) -> list[str]:
        """The command, in the foreground."""

    def environment(self) -> dict[str, str]:
        """The environment of the process."""
        return {**os.environ, "LC_ALL": "C.UTF-8"}

    def orphans(self) -> list[ProcessRecord]:
        """Processes that it started and that outlive it."""
        return []

    @abstractmethod
    def answers(self) -> bool:
        """Whether a real request is answered now; within two seconds, never raising."""


def accepts(port: int, *, seconds: float = 0.5) -> bool:
    """Whether something listens on the loopback port."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=seconds).close()
    except OSError:
        return False
    return True


def write_if_changed(path: Path, text: str) -> None:
    """Write a rendered file, leaving an equal one as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
