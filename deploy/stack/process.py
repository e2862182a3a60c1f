"""Detached processes, found again by their record.

A record names a process for good: pid and start time together, so a pid that the system has given
to somebody else is never signalled.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from deploy.priority import give_way

POLL_SECONDS = 0.05
TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """A started server: ``ticks`` is its start in clock ticks since boot, ``at`` in Unix seconds."""

    name: str
    pid: int
    ticks: int
    boot: str
    address: str
    at: float

    def save(self, path: Path) -> None:
        """Write the record so that a reader sees the old one or the new one, never half of it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(self)) + "\n")
        fresh.replace(path)

    @classmethod
    def load(cls, path: Path) -> ProcessRecord | None:
        """The record in ``path``; None when there is none or it cannot be read."""
        try:
            return cls(**json.loads(path.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """What /proc says of a process: state letter, parent, start ticks, resident bytes, CPU seconds, threads."""

    pid: int
    state: str
    parent: int
    ticks: int
    rss: int
    cpu_seconds: float
    threads: int = 1

    @property
    def runs(self) -> bool:
        """Whether some thread of it does, paused or not: the others may outlive the first, with all its ports and files."""
        return self.state != "Z" or self.threads > 1


def read_stat(pid: int) -> ProcessStat | None:
    """The process' state; None when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return parse_stat(text)


def parse_stat(text: str) -> ProcessStat:
    """One line of /proc/PID/stat. The command in brackets may hold blanks and brackets itself."""
    pid = int(text.split(" ", 1)[0])
    rest = text[text.rindex(")") + 2 :].split()
    cpu = (int(rest[11]) + int(rest[12])) / TICKS
    rss = int(rest[21]) * PAGE_BYTES
    return ProcessStat(pid, rest[0], int(rest[1]), int(rest[19]), rss, cpu, int(rest[17]))


def boot_id() -> str:
    """Changes at every boot: start ticks of two boots must never be compared."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def is_alive(record: ProcessRecord | None) -> bool:
    """Whether the very process of the record runs (a paused one does; a zombie does not)."""
    if record is None:
        return False
    _reap(record.pid)
    stat = read_stat(record.pid)
    return stat is not None and stat.runs and stat.ticks == record.ticks and record.boot == boot_id()


def start_detached(
    name: str,
    argv: Sequence[str],
    *,
    out: Path,
    cwd: Path,
    environment: Mapping[str, str],
    address: str,
    nice: int = 0,
) -> ProcessRecord:
    """Start ``argv`` in a session of its own, its output appended to ``out``; it outlives this process,
    and gives way by ``nice``.

    Raises OSError when the program cannot be started.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("ab") as stream:
        child = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=dict(environment),
            start_new_session=True,
            preexec_fn=partial(give_way, nice) if nice else None,  # noqa: PLW1509 - this command has one thread
        )
    stat = read_stat(child.pid)
    child.returncode = 0  # it outlives us on purpose: no ResourceWarning, no wait at exit
    return ProcessRecord(name, child.pid, stat.ticks if stat else 0, boot_id(), address, time.time())


def send(record: ProcessRecord, number: signal.Signals) -> None:
    """Signal the process of the record; nothing happens when it is gone."""
    if is_alive(record):
        try:
            os.kill(record.pid, number)
        except ProcessLookupError:
            return


def stop(
    records: Iterable[ProcessRecord],
    *,
    seconds: float,
    first: signal.Signals = signal.SIGTERM,
) -> None:
    """End processes together: ``first``, then SIGKILL to those that still run after ``seconds``."""
    waiting = [record for record in records if is_alive(record)]
    for record in waiting:
        send(record, first)
        send(record, signal.SIGCONT)  # a paused process could not answer
    if not wait_gone(waiting, seconds=seconds):
        for record in waiting:
            send(record, signal.SIGKILL)
        wait_gone(waiting, seconds=10)


def wait_gone(records: Sequence[ProcessRecord], *, seconds: float) -> bool:
    """Wait until none of the processes runs; False when some still do after ``seconds``."""
    deadline = time.monotonic() + seconds
    while any(is_alive(record) for record in records):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def every_process() -> list[ProcessStat]:
    """All processes of this machine that can be seen."""
    stats = (read_stat(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [stat for stat in stats if stat is not None]


def descendants(stats: Iterable[ProcessStat], roots: Iterable[int]) -> list[ProcessStat]:
    """The processes under ``roots`` (themselves left out), parents before their children."""
    children: dict[int, list[ProcessStat]] = {}
    for stat in stats:
        children.setdefault(stat.parent, []).append(stat)
    found: list[ProcessStat] = []
    queue = list(roots)
    while queue:
        below = children.get(queue.pop(0), [])
        found += below
        queue += [stat.pid for stat in below]
    return found


def record_of(stat: ProcessStat, name: str = "") -> ProcessRecord:
    """A record of a process that somebody else started."""
    return ProcessRecord(name, stat.pid, stat.ticks, boot_id(), "", 0.0)


def _reap(pid: int) -> None:
    """Collect an ended child of our own, so that it does not stay as a zombie."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except (ChildProcessError, OSError):
        return
