"""Apache Storm: ZooKeeper, Nimbus, the supervisor.

Topologies survive all three: ZooKeeper writes to disk, Nimbus keeps the code, and workers go on while
the daemons are away.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any, ClassVar

from deploy.priority import GIVE_WAY
from deploy.stack.jars import jar_folder
from deploy.stack.java import java_argv, rolling_log4j2
from deploy.stack.nimbus import nimbus
from deploy.stack.process import ProcessRecord, every_process, record_of
from deploy.stack.servers.base import Server, accepts, silent, write_if_changed
from deploy.stack.settings import LOOPBACK, StackSettings
from deploy.storm.home import ensure_home, storm_home
from deploy.storm.loopback import loopback_environment
from deploy.storm.shell import component_environment

SHADE = "org.apache.storm.shade."


class ZooKeeper(Server):
    """Storm's memory; answers when it says that it serves."""

    group: ClassVar[str] = "storm"
    jars: ClassVar[str | None] = "storm"

    def __init__(self, settings: StackSettings) -> None:
        super().__init__("zookeeper", settings.zookeeper_port, settings)

    def prepare(self) -> None:
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        write_if_changed(self.folder / "zoo.cfg", zoo_cfg(self.port, self.folder / "data"))
        write_if_changed(self.folder / "log4j2.xml", rolling_log4j2(self.log))

    def argv(self) -> list[str]:
        return java_argv(
            SHADE + "org.apache.zookeeper.server.quorum.QuorumPeerMain",
            heap_mb=self.settings.daemon_heap_mb,
            class_path=[f"{jar_folder(self.settings, 'storm')}/*"],
            properties={"log4j2.configurationFile": f"file:{self.folder / 'log4j2.xml'}"},
            arguments=[str(self.folder / "zoo.cfg")],
        )

    def answers(self) -> bool:
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=2) as connection:
                connection.sendall(b"srvr")
                return b"Mode: standalone" in connection.recv(4096)
        except OSError:
            return False


class StormDaemon(Server):
    """What Nimbus and the supervisor share."""

    group: ClassVar[str] = "storm"
    jars: ClassVar[str | None] = "storm"
    main: ClassVar[str]

    def prepare(self) -> None:
        ensure_home(self.settings, silent)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.settings.folder("storm", "local").mkdir(parents=True, exist_ok=True)

    def argv(self) -> list[str]:
        home = storm_home(self.settings)
        return java_argv(
            self.main,
            heap_mb=self.settings.daemon_heap_mb,
            class_path=[f"{home / 'lib'}/*", str(home / "conf")],
            properties={
                "daemon.name": self.name,
                "storm.home": str(home),
                "storm.log.dir": str(self.settings.folder("logs")),
                "logfile.name": f"{self.name}.log",
                "log4j2.configurationFile": f"file:{home / 'log4j2' / 'cluster.xml'}",
            },
            arguments=[],
        )

    def environment(self) -> dict[str, str]:
        """Workers inherit it: streamparse_run is found beside the Python that runs this."""
        base = loopback_environment(component_environment(super().environment()), self.settings)
        return {
            **base,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), base.get("PATH", os.defpath)]),
        }


class Nimbus(StormDaemon):
    """The master; answers when it leads the cluster."""

    after: ClassVar[tuple[str, ...]] = ("zookeeper",)
    main: ClassVar[str] = "org.apache.storm.daemon.nimbus.Nimbus"

    def __init__(self, settings: StackSettings) -> None:
        super().__init__("nimbus", settings.nimbus_port, settings)

    def answers(self) -> bool:
        summary = cluster_summary(self.port)
        return summary is not None and any(nimbus.isLeader for nimbus in summary.nimbuses or [])


class Supervisor(StormDaemon):
    """Starts and watches workers; answers when Nimbus counts its slots.

    Workers outlive it, so that its crash harms nothing; an orderly stop of the stack ends them too.
    """

    after: ClassVar[tuple[str, ...]] = ("nimbus",)
    main: ClassVar[str] = "org.apache.storm.daemon.supervisor.Supervisor"
    nice: ClassVar[int] = GIVE_WAY  # its workers inherit it

    def __init__(self, settings: StackSettings) -> None:
        super().__init__("supervisor", settings.supervisor_port, settings)

    def answers(self) -> bool:
        if not accepts(self.port):
            return False
        summary = cluster_summary(self.settings.nimbus_port)
        return summary is not None and any(
            item.num_workers >= self.settings.worker_slots for item in summary.supervisors or []
        )

    def orphans(self) -> list[ProcessRecord]:
        """Worker JVMs and their log writers of this stack, whoever is their parent now."""
        return worker_processes(self.settings)


def worker_processes(settings: StackSettings) -> list[ProcessRecord]:
    """Every JVM of this stack's workers: the worker and the log writer above it."""
    mark = f"-Dworkers.artifacts={settings.folder('logs', 'workers')}".encode()
    found = []
    for stat in every_process():
        try:
            command = Path(f"/proc/{stat.pid}/cmdline").read_bytes()
        except OSError:
            continue
        if mark in command.split(b"\0"):
            found.append(record_of(stat, "worker"))
    return found


def cluster_summary(port: int, *, seconds: float = 2.0) -> Any | None:
    """Nimbus' own account of the cluster (Thrift's ClusterSummary); None when it does not answer."""
    if not accepts(port):
        return None
    try:
        with nimbus(LOOPBACK, port, seconds) as service:
            return service.getClusterInfo()
    except OSError:
        return None


def zoo_cfg(port: int, data: Path) -> str:
    """ZooKeeper's configuration for one server; old snapshots are purged every hour."""
    values = {
        "tickTime": 2000,
        "dataDir": data,
        "clientPort": port,
        "clientPortAddress": LOOPBACK,
        "maxClientCnxns": 200,
        "admin.enableServer": "false",
        "4lw.commands.whitelist": "srvr,ruok",
        "autopurge.purgeInterval": 1,
        "autopurge.snapRetainCount": 3,
    }
    return "".join(f"{key}={value}\n" for key, value in values.items())
