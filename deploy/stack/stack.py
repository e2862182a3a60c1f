"""Starting, finding, checking and stopping the stack's servers.

``up`` is idempotent: what answers is left alone, what died is started again, and it returns when
every server asked for answers a real request. ``down`` leaves no process behind.
"""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.stack import debian
from deploy.stack.errors import StackError
from deploy.stack.handle import ServerHandle
from deploy.stack.jars import ensure_jars
from deploy.stack.process import (
    ProcessRecord,
    descendants,
    every_process,
    is_alive,
    read_stat,
    record_of,
    start_detached,
    stop,
)
from deploy.stack.servers.base import Say, Server, accepts, silent
from deploy.stack.servers.catalogue import every_server
from deploy.stack.settings import StackSettings

POLL_SECONDS = 0.2
PROGRESS_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """One line of ``status``: ``state`` is up, paused, starting (runs, does not answer) or down."""

    name: str
    state: str
    pid: int | None
    address: str
    rss: int
    uptime: float


class Stack:
    """The servers of one folder. ``say`` gets one line of progress at a time."""

    def __init__(self, settings: StackSettings, say: Say = silent) -> None:
        self.settings = settings
        self.say = say
        self.servers = every_server(settings)

    def chosen(self, only: Sequence[str] = ()) -> list[Server]:
        """Servers by group or name, in starting order; all of them without ``only``."""
        known = [server.name for server in self.servers] + [server.group for server in self.servers]
        for name in only:
            if name not in known:
                raise StackError(f"no server {name!r}; expected some of {', '.join(dict.fromkeys(known))}")
        return [item for item in self.servers if not only or item.name in only or item.group in only]

    def server(self, name: str) -> ServerHandle:
        """One server, to be started, stopped, killed or paused by tests and drills."""
        for item in self.servers:
            if item.name == name:
                return ServerHandle(self, item)
        raise StackError(
            f"no server {name!r}; expected one of {', '.join(item.name for item in self.servers)}"
        )

    def up(self, only: Sequence[str] = ()) -> dict[str, float]:
        """Start what does not run and wait until each answers; seconds from its start, by server that was started.

        Raises StackError when something is missing, a port is taken, or a server fails to answer.
        """
        wanted = self.chosen(only)
        with self._alone():
            return self._up(wanted)

    def _up(self, wanted: list[Server]) -> dict[str, float]:
        waiting = [item for item in wanted if not is_alive(self.record(item)) or not item.answers()]
        if not waiting:
            return {}
        self._provide(waiting)
        return self._start(waiting, {item.name for item in wanted})

    def provide(self) -> None:
        """Install and fetch what the servers need, and start none. Raises StackError when something cannot be had."""
        with self._alone():
            self._provide(self.servers)

    def _provide(self, servers: Sequence[Server]) -> None:
        debian.ensure({item.group for item in servers}, self.settings, self.say)
        for jars in dict.fromkeys(item.jars for item in servers if item.jars):
            ensure_jars(self.settings, jars, self.say)

    def _start(self, waiting: list[Server], wanted: set[str]) -> dict[str, float]:
        """Start each server as soon as those before it answer, and wait for all."""
        began: dict[str, float] = {}
        seconds: dict[str, float] = {}
        # One that runs and was only slow to answer is waited for, but is not ours to stop.
        ran = {item.name for item in waiting if is_alive(self.record(item))}
        try:
            self._start_each(waiting, wanted, began, seconds)
        except KeyboardInterrupt:
            self._stop([item for item in self.servers if item.name in began.keys() - ran])
            raise
        except Exception:
            self._stop([item for item in self.servers if item.name in began.keys() - seconds.keys() - ran])
            raise
        return {name: seconds[name] for name in seconds if name not in ran}

    def _start_each(
        self, waiting: list[Server], wanted: set[str], began: dict[str, float], seconds: dict[str, float]
    ) -> None:
        """Move each server from ``waiting`` over ``began`` to ``seconds``."""
        told = time.monotonic()
        while waiting:
            blocking = {item.name for item in waiting}
            for item in list(waiting):
                if blocking & set(item.after) & wanted:
                    continue
                if item.name not in began:
                    self.launch(item)
                    began[item.name] = time.monotonic()
                elif item.answers():
                    seconds[item.name] = time.monotonic() - began[item.name]
                    self.say(f"{item.name} answers at {item.address} ({seconds[item.name]:.1f} s)")
                    waiting.remove(item)
                else:
                    self._check_started(item, time.monotonic() - began[item.name])
            if waiting and time.monotonic() - told > PROGRESS_SECONDS:
                told = time.monotonic()
                self.say("waiting for " + ", ".join(item.name for item in waiting))
            time.sleep(POLL_SECONDS if waiting else 0)

    def launch(self, item: Server) -> ProcessRecord:
        """Start one server, unless its process runs already, and return without waiting for its answer."""
        record = self.record(item)
        if record is not None and is_alive(record):
            return record
        for setting, port in item.ports().items():
            if accepts(port):
                raise StackError(
                    f"{item.name}: port {port} is taken by another process; "
                    f"free it or set TIDE_STACK_{setting.upper()}"
                )
        item.prepare()
        try:
            record = start_detached(
                item.name,
                item.argv(),
                out=item.out,
                cwd=item.folder,
                environment=item.environment(),
                address=item.address,
                nice=item.nice,
            )
        except OSError as error:
            raise StackError(
                f"{item.name}: {item.argv()[0]} could not be started: {error.strerror}"
            ) from None
        record.save(self.record_path(item))
        return record

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Only one process at a time starts or stops servers of this folder; others wait."""
        path = self.settings.folder("run", "lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.say("another `tide stack` is at work here; waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _check_started(self, item: Server, seconds: float) -> None:
        if not is_alive(self.record(item)):
            raise StackError(
                f"{item.name} ended while starting; its last lines ({item.out}):\n{last_lines(item)}"
            )
        if seconds > self.settings.start_seconds:
            raise StackError(
                f"{item.name} does not answer at {item.address} after {seconds:.0f} s; its last lines:\n{last_lines(item)}"
            )

    def down(self, only: Sequence[str] = ()) -> list[str]:
        """Stop servers, the last started first, and everything that they started; the names that ran."""
        chosen = self.chosen(only)
        if not self.settings.home.exists():
            return []
        with self._alone():
            return self._stop(chosen)

    def _stop(self, chosen: list[Server]) -> list[str]:
        stopped = []
        for item in reversed(chosen):
            record = self.record(item)
            roots = [record] if record is not None and is_alive(record) else []
            orphans = item.orphans()
            below = descendants(every_process(), [each.pid for each in [*roots, *orphans]])
            if roots:
                self.say(f"stopping {item.name}")
                stop(roots, seconds=item.stop_seconds, first=item.stop_signal)
                stopped.append(item.name)
            # Workers before their Python children: a worker that loses a child first reports a failure.
            stop(orphans, seconds=item.stop_seconds)
            stop([record_of(stat) for stat in below], seconds=5)
            self.record_path(item).unlink(missing_ok=True)
        return stopped

    def status(self) -> list[ServerStatus]:
        """State, pid, address, resident bytes and uptime of each server."""
        return [self._status(item) for item in self.servers]

    def _status(self, item: Server) -> ServerStatus:
        record = self.record(item)
        stat = read_stat(record.pid) if record else None
        if record is None or stat is None or not is_alive(record):
            return ServerStatus(item.name, "down", None, item.address, 0, 0.0)
        paused = stat.state in "Tt"
        state = "paused" if paused else "up" if item.answers() else "starting"
        return ServerStatus(
            item.name,
            state,
            record.pid,
            record.address,
            stat.rss,
            time.time() - record.at,
        )

    def running(self) -> list[str]:
        """Names of servers whose process runs."""
        return [item.name for item in self.servers if is_alive(self.record(item))]

    def log_files(self, name: str) -> list[Path]:
        """The log files to show for a server, or for ``workers``. Raises StackError when there is none yet."""
        if name == "workers":
            found = sorted(self.settings.folder("logs", "workers").glob("*/*/worker.log"))
        else:
            item = self.server(name).server
            found = [path for path in (item.log, item.out) if path.exists() and path.stat().st_size]
        if not found:
            raise StackError(f"{name} has no log yet in {self.settings.folder('logs')}")
        return found

    def refuse_while_running(self) -> None:
        """Raise StackError when a server or a Storm worker runs."""
        running = self.running() + [record.name for item in self.servers for record in item.orphans()]
        if running:
            names = ", ".join(dict.fromkeys(running))
            raise StackError(f"still running: {names}; stop them first with `tide stack down`")

    def wipe(self) -> None:
        """Delete the stack's folder. Raises StackError when something runs, or the folder is not a stack's."""
        self.refuse_while_running()
        home = self.settings.home
        if home.exists() and not self.settings.folder("run").is_dir():
            raise StackError(
                f"{home} does not look like a stack's folder (it has no run/); nothing was deleted"
            )
        shutil.rmtree(home)

    def record_path(self, item: Server) -> Path:
        """Where the server's process is recorded."""
        return self.settings.folder("run", f"{item.name}.json")

    def record(self, item: Server) -> ProcessRecord | None:
        """The recorded process of the server, running or not."""
        return ProcessRecord.load(self.record_path(item))


def last_lines(item: Server, count: int = 8) -> str:
    """The end of what the server said, from its log and its output."""
    lines: list[str] = []
    for path in (item.log, item.out):
        if path.exists():
            lines += path.read_text(errors="replace").splitlines()[-count:]
    return "\n".join("  " + line for line in lines[-count:])
