"""Sets up a real stack for a chaos run: servers on free ports, links, clocks, small disks, both topologies, the services.

Promises: after the block no process of it is left, and nothing outside its folder.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from bench.chaos.clocks import Clocks
from bench.chaos.components import CLASSES, CLOCK_WORDS, free_ports
from bench.chaos.disks import Disk, Disks
from bench.chaos.links import Links
from bench.chaos.pair import Pair, links_of
from bench.chaos.pair import Server as Member
from bench.chaos.stack import STORES, StackSite
from clicktide.errors import ClicktideError
from clicktide.settings import from_environment, options_of
from deploy.embedded import plan
from deploy.embedded.child import Child
from deploy.prepare import make_topics, migrate_shards
from deploy.stack.servers.base import Server
from deploy.stack.servers.kafka import Kafka
from deploy.stack.servers.redis import Redis
from deploy.stack.servers.storm import Supervisor
from deploy.stack.settings import StackSettings, settings_from
from deploy.stack.stack import Stack

PROJECT_PARTS = ("src", "topologies", "retry", "project.clj", "virtualenvs")
START_S = 600.0  # Storm needs half a minute for workers, and a loaded machine ten times that
SECOND = "redis-2"
DISK_BASE_MB = {"kafka": 160, "redis": 64, SECOND: 64, "mariadb-1": 640, "mariadb-2": 640}
DISK_KB_A_RECORD = 8


@contextmanager
def running_stack(
    root: Path,
    project: Path,
    config: Mapping[str, object],
    disks: Disks,
    records: float,
    say: Callable[[str], None],
) -> Iterator[tuple[StackSite, dict[str, str]]]:
    """A stack below `root` with both topologies running; `config` is config.json's content, `records` will be sent."""
    own = stack_settings(root, project)
    with ExitStack() as things:
        scratch = Path(tempfile.mkdtemp(prefix="clicktide-chaos-"))
        things.callback(shutil.rmtree, scratch, ignore_errors=True)
        clocks = Clocks(scratch / "clocks", CLOCK_WORDS)
        names = (*STORES, "collector", "replication", "services", SECOND)
        ports = dict(zip(names, free_ports(len(names), own.worker_port + own.worker_slots), strict=True))
        links = Links(link_ends(own, ports), root / "chaos" / "proxy.log")
        things.callback(links.close)
        stack = Stack(own, say)
        stack.servers = with_faults(stack.servers, own, ports, clocks)
        mounted = make_disks(own, disks, records)
        config_file = write_project(root, project, config, own, ports)
        settings = from_environment({}, options_of(config_file, "stack"))
        environ = environment(project, own, config_file)
        things.callback(stack.down)
        stack.up()
        make_topics(settings)
        migrate_shards(settings)
        services = services_of(root, ports["services"], clocks.environment(environ))
        services.start(time.monotonic())
        things.callback(services.end)
        things.callback(services.ask_to_end)
        pair = Pair(
            _member(stack, "redis", own.redis_port),
            _member(stack, SECOND, ports[SECOND]),
            links,
            ports["replication"],
        )
        url = f"http://127.0.0.1:{ports['collector']}"
        site = StackSite(stack, settings, services, url, links, clocks, mounted, pair, say)
        for name in ("events", "redrive"):
            submit(name, root, project, environ, say)
        wait_for(lambda: services.check_ready() and all(site.pids(name) for name in CLASSES), START_S, say)
        yield site, environ


def link_ends(own: StackSettings, ports: Mapping[str, int]) -> dict[str, tuple[str, str]]:
    """Listen and upstream address of every link."""
    there = {"kafka": own.kafka_port, "mariadb-1": own.mariadb_1_port, "mariadb-2": own.mariadb_2_port}
    there["collector"] = ports["services"]
    return {
        **{name: (f"tcp:{ports[name]}", f"tcp:{port}") for name, port in there.items()},
        **links_of(f"tcp:{own.redis_port}", f"tcp:{ports['redis']}", ports["replication"]),
    }


class _Kafka(Kafka):
    """Tells its clients to come by the link."""

    link_port: int

    def prepare(self) -> None:
        super().prepare()
        told = f"advertised.listeners=CLIENT://127.0.0.1:{self.port}\n"
        text = self.configuration.read_text("utf-8")
        assert told in text
        self.configuration.write_text(text.replace(told, told.replace(str(self.port), str(self.link_port))))


class _Supervisor(Supervisor):
    """Starts workers whose clocks can be set."""

    clocks: Clocks

    def environment(self) -> dict[str, str]:
        return self.clocks.environment(super().environment())


def with_faults(
    servers: list[Server], own: StackSettings, ports: Mapping[str, int], clocks: Clocks
) -> list[Server]:
    """The stack's servers, those that faults need otherwise replaced, and a second Redis."""
    kafka, supervisor = _Kafka(own), _Supervisor(own)
    kafka.link_port, supervisor.clocks = ports["kafka"], clocks
    second = Redis(dataclasses.replace(own, redis_port=ports[SECOND]))
    second.name = SECOND
    replaced: dict[str, Server] = {kafka.name: kafka, supervisor.name: supervisor}
    return [second, *(replaced.get(item.name, item) for item in servers)]


def make_disks(own: StackSettings, disks: Disks, records: float) -> dict[str, Disk]:
    """A small disk for each store's data, with room for so many records, by the server's name."""
    out = {}
    for name, base_mb in DISK_BASE_MB.items():
        disk = disks.mount(own.folder(name, "data"), int(base_mb + DISK_KB_A_RECORD * records / 1024))
        if disk:
            out[name] = disk
    return out


def _member(stack: Stack, name: str, port: int) -> Member:
    import redis

    client = redis.Redis(port=port, socket_timeout=0.5, socket_connect_timeout=0.5)
    ask: Callable[..., Any] = client.execute_command
    return Member(name, f"tcp:{port}", ask, partial(_kill, stack, name))


def _kill(stack: Stack, name: str) -> None:
    handle = stack.server(name)
    if handle.pid is not None:
        handle.kill()


def services_of(root: Path, port: int, environ: Mapping[str, str]) -> Child:
    """All services in one process, as `./tide serve all` runs them."""
    return Child(
        "services",
        [sys.executable, "-P", "-m", "services", "all", "--port", str(port)],
        root / "services.log",
        environ,
        lambda: plan.http_ok(f"http://127.0.0.1:{port}/health/ready"),
    )


def stack_settings(root: Path, project: Path) -> StackSettings:
    """A stack of its own: every port a free one, little memory."""
    names = (
        "KAFKA",
        "KAFKA_CONTROLLER",
        "REDIS",
        "MARIADB_1",
        "MARIADB_2",
        "ZOOKEEPER",
        "NIMBUS",
        "SUPERVISOR",
    )
    ports = free_ports(len(names) + 4)
    given = {f"TIDE_STACK_{name}_PORT": str(port) for name, port in zip(names, ports, strict=False)}
    slots = {"TIDE_STACK_WORKER_PORT": str(max(ports) + 1), "TIDE_STACK_WORKER_SLOTS": "4"}
    heaps = {"TIDE_STACK_WORKER_HEAP_MB": "192", "TIDE_STACK_KAFKA_HEAP_MB": "384"}
    kept = {k: v for k, v in os.environ.items() if k in ("TIDE_CACHE", "XDG_CACHE_HOME", "HOME")}
    return settings_from({**kept, **given, **slots, **heaps}, home=root / "stack", project=project)


def write_project(
    root: Path, project: Path, config: Mapping[str, object], own: StackSettings, ports: Mapping[str, int]
) -> Path:
    """The project's copy that is submitted, with the links' addresses in its config.json."""
    home = root / "project"
    home.mkdir(parents=True)
    for part in PROJECT_PARTS:
        source = project / part
        if source.is_dir():
            shutil.copytree(source, home / part, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, home / part)
    changed = json.loads(json.dumps(config))
    changed["envs"]["stack"]["nimbus"] = f"127.0.0.1:{own.nimbus_port}"
    _options(changed).update(
        {
            "tide.topics.partitions": 4,
            "tide.kafka.bootstrap": f"127.0.0.1:{ports['kafka']}",
            "tide.redis.url": f"redis://127.0.0.1:{ports['redis']}/0",
            "tide.sql.dsns": " ".join(
                f"mysql+pymysql://tide:tide@127.0.0.1:{ports[name]}/tide"
                for name in ("mariadb-1", "mariadb-2")
            ),
        }
    )
    (home / "config.json").write_text(json.dumps(changed, indent=1), "utf-8")
    return home / "config.json"


def _options(config: Mapping[str, object]) -> dict[str, object]:
    found = config["envs"]["stack"]["options"]  # type: ignore[index]
    assert isinstance(found, dict)
    return found


def environment(project: Path, own: StackSettings, config_file: Path) -> dict[str, str]:
    """What commands against this stack get."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TIDE_")}
    ports = {
        f"TIDE_STACK_{name.upper()}": str(getattr(own, name))
        for name in own.__slots__
        if name.endswith("_port") or name == "worker_slots"
    }
    return {
        **kept,
        **ports,
        "TIDE_STACK_HOME": str(own.home),
        "TIDE_CACHE": str(own.cache),
        "TIDE_CONFIG": str(config_file),
        "TIDE_ENV": "stack",
        "PYTHONPATH": os.pathsep.join([str(project), str(project / "src")]),
    }


def submit(
    name: str, root: Path, project: Path, environ: Mapping[str, str], say: Callable[[str], None]
) -> None:
    """`./tide sparse submit` of one topology. Raises `ClicktideError`."""
    say(f"submitting {name}")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "cli.main", "sparse", "submit", "-n", name, "-e", "stack"],
        cwd=root / "project",
        env={**environ, "PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    (root / f"submit-{name}.log").write_text(done.stdout + done.stderr, "utf-8")
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]
        raise ClicktideError(f"submitting {name} failed: {last} (see {root}/submit-{name}.log)")


def wait_for(met: Callable[[], bool], seconds: float, say: Callable[[str], None]) -> None:
    """Raises `ClicktideError` when it does not come true in time."""
    until = told = time.monotonic()
    until += seconds
    while not met():
        if time.monotonic() > until:
            raise ClicktideError(f"the topologies did not come up within {seconds:.0f} s")
        if time.monotonic() - told > 10:
            told = time.monotonic()
            say("waiting for the topologies' processes")
        time.sleep(0.3)
