"""What processes cost: CPU seconds and memory by role, read from /proc.

A role is the part of the system a process belongs to, recognised by its command line.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")

# In order: the first whose words are all in a process's command line.
ROLES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("spout", ("streamparse_run", "KafkaSpout")),
    ("parse", ("streamparse_run", "ParseBolt")),
    ("aggregate", ("streamparse_run", "AggregateBolt")),
    ("persist", ("streamparse_run", "PersistBolt")),
    ("divert", ("streamparse_run", "DivertBolt")),
    ("redrive", ("streamparse_run", "Retry")),
    ("hub", ("localstorm",)),
    ("services", ("-m services",)),
    ("worker JVM", ("org.apache.storm.daemon.worker.Worker",)),
    ("worker JVM", ("org.apache.storm.LogWriter",)),
    ("Storm daemons", ("org.apache.storm",)),
    ("Storm daemons", ("DevZookeeper",)),
    ("Kafka", ("kafka.Kafka",)),
    ("Redis", ("redis-server",)),
    ("Redis", ("redis-aof-rewrite",)),
    ("MariaDB", ("mariadbd",)),
    ("demo", ("cli.main demo",)),
)


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    parent: int
    role: str
    cpu_s: float


def processes() -> list[Process]:
    """All processes that have a role."""
    entries = (entry for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [process for entry in entries if (process := _read(entry)) is not None]


def below(roots: Iterable[int], found: Iterable[Process]) -> list[Process]:
    """Those of `found` that descend from one of the processes `roots` (themselves included)."""
    found = list(found)
    inside = set(roots)
    while True:
        more = {p.pid for p in found if p.parent in inside} - inside
        if not more:
            return [p for p in found if p.pid in inside]
        inside |= more


def cpu_by_role(found: Iterable[Process]) -> dict[int, tuple[str, float]]:
    return {p.pid: (p.role, p.cpu_s) for p in found}


def spent(
    before: Mapping[int, tuple[str, float]], after: Mapping[int, tuple[str, float]]
) -> dict[str, float]:
    """CPU seconds by role between two looks; a process that came in between counts in full."""
    out: defaultdict[str, float] = defaultdict(float)
    for pid, (role, cpu) in after.items():
        out[role] += cpu - before.get(pid, (role, 0.0))[1]
    return dict(out)


def memory_mb(found: Iterable[Process]) -> dict[str, float]:
    """Proportional set size by role, MiB: shared pages are counted once in all."""
    out: defaultdict[str, float] = defaultdict(float)
    for p in found:
        try:
            rollup = Path(f"/proc/{p.pid}/smaps_rollup").read_text()
        except OSError:
            continue
        out[p.role] += (
            next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) / 1024
        )
    return dict(out)


def _read(entry: Path) -> Process | None:
    try:
        command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        fields = (entry / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    role = next((role for role, words in ROLES if all(w in command for w in words)), None)
    if role is None:
        return None
    return Process(int(entry.name), int(fields[1]), role, (int(fields[11]) + int(fields[12])) / TICKS)
