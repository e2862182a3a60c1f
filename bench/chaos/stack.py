"""A real stack of its own as a place for faults: Storm, Kafka, Redis, two MariaDB servers, and the services.

Its folder, its ports and its topologies are the run's, so that a stack that others use is not touched. Promises: what
a fault ended is started again as an operator's service manager would; after the block no process of it is left.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.chaos.plan import KILL, LOSE, SLOW, STOP
from clicktide import keys
from clicktide.errors import ClicktideError
from clicktide.redisstore.client import connect
from clicktide.settings import Settings, from_environment, options_of
from deploy.embedded import plan
from deploy.embedded.child import Child
from deploy.prepare import make_topics, migrate_shards
from deploy.stack.process import descendants, every_process
from deploy.stack.servers.storm import worker_processes
from deploy.stack.settings import StackSettings, settings_from
from deploy.stack.stack import Stack

SERVERS = ("kafka", "redis", "mariadb-1", "mariadb-2", "zookeeper", "nimbus", "supervisor")
# Component by the class that streamparse_run is told to run.
TASKS = {
    "events.spout": b"KafkaSpout",
    "events.parse": b"ParseBolt",
    "events.aggregate": b"AggregateBolt",
    "events.persist": b"PersistBolt",
    "redrive.retry_spout": b"RetrySpout",
    "redrive.retry": b"RetryBolt",
    "divert": b"DivertBolt",
}
PROJECT_PARTS = ("src", "topologies", "retry", "project.clj", "virtualenvs")
START_S = 180.0
RESTART_PAUSE_S = 1.0


def targets() -> Mapping[str, Sequence[str]]:
    """Whom each kind of fault can befall."""
    everybody = [*TASKS, *SERVERS, "worker", "services"]
    slow = ["redis", "mariadb-1", "mariadb-2", "kafka"]
    return {KILL: everybody, STOP: [n for n in everybody if n != "zookeeper"], SLOW: slow, LOSE: ["redis"]}


class StackSite:
    """Wraps a running `Stack` and its services; `tend` must be called a few times a second."""

    def __init__(
        self, stack: Stack, settings: Settings, services: Child, url: str, say: Callable[[str], None]
    ) -> None:
        self.stack, self.settings, self.services, self.url, self.say = stack, settings, services, url, say
        self._down: dict[str, float] = {}
        self._workers: set[int] = set()
        self._restarts = 0

    def tend(self) -> None:
        """Starts again what has ended, a second later."""
        now = time.monotonic()
        for item in self.stack.servers:
            if self.stack.server(item.name).pid is not None:
                self._down.pop(item.name, None)
            elif item.name not in self._down:
                self._down[item.name] = now + RESTART_PAUSE_S
                self.say(f"{item.name} has ended; starting it again in {RESTART_PAUSE_S:g} s")
            elif now >= self._down[item.name]:
                self.stack.launch(item)
        if self.services.exit_code() is not None:
            self._restarts += 1
            self.services.start(now)

    def pids(self, target: str) -> list[int]:
        if target == "services":
            pid = self.services.pid if self.services.exit_code() is None else None
        elif target in SERVERS:
            pid = self.stack.server(target).pid
        else:
            return self._storm(target)
        return [pid] if pid else []

    def _storm(self, target: str) -> list[int]:
        """The first worker JVM of a topology, or the first process of a component."""
        workers = [record.pid for record in worker_processes(self.stack.settings)]
        if target == "worker":
            return [pid for pid in workers if b"org.apache.storm.daemon.worker.Worker" in _command(pid)][:1]
        name = TASKS[target]
        below = [stat.pid for stat in descendants(every_process(), workers)]
        return [pid for pid in below if pid not in workers and name in b" ".join(_command(pid))][:1]

    def lock_file(self, target: str) -> Path:
        raise ValueError(f"{target}: there are no shard files on the stack")

    def aof(self) -> tuple[Path, int] | None:
        if not self.stack.server("redis").answers():
            return None
        files = sorted(self.stack.settings.folder("redis", "data").rglob("*.incr.aof"))
        return (files[-1], files[-1].stat().st_size) if files else None

    def lose(self, mark: tuple[Path, int]) -> int | None:
        file, size = mark
        handle = self.stack.server("redis")
        if handle.pid is None:
            return None
        handle.kill()
        if max(file.parent.glob("*.incr.aof")) != file:
            return None
        lost = file.stat().st_size - size
        os.truncate(file, size)
        return lost

    def published(self, topic: str) -> dict[str, str]:
        """The spouts' positions, as they are stored. Raises OSError while Redis is away."""
        client = connect(self.settings, timeout_s=1.0)
        try:
            answer = client.hgetall(keys.spouts(self.settings.text("redis.namespace"), topic))
        except Exception as e:
            raise ConnectionError(str(e)) from e
        finally:
            client.close()
        return {_text(k): _text(v) for k, v in answer.items()}

    def replays(self) -> int:
        """Storm's own count is lost with its workers: not known."""
        return 0

    def restarts(self) -> int:
        return self._restarts


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _command(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


@contextmanager
def running_stack(
    root: Path, project: Path, config: Mapping[str, object], say: Callable[[str], None]
) -> Iterator[tuple[StackSite, dict[str, str]]]:
    """A stack below `root` with both topologies running; `config` is config.json's content."""
    own = stack_settings(root, project)
    stack = Stack(own, say)
    config_file = write_project(root, project, config, own)
    settings = from_environment({}, options_of(config_file, "stack"))
    environ = environment(project, own, config_file)
    with ExitStack() as things:
        things.callback(stack.down)
        stack.up()
        make_topics(settings)
        migrate_shards(settings)
        port = free_ports(1)[0]
        services = Child(
            "services",
            [sys.executable, "-P", "-m", "services", "all", "--port", str(port)],
            root / "services.log",
            environ,
            lambda: plan.http_ok(f"http://127.0.0.1:{port}/health/ready"),
        )
        services.start(time.monotonic())
        things.callback(services.end)
        things.callback(services.ask_to_end)
        site = StackSite(stack, settings, services, f"http://127.0.0.1:{port}", say)
        for name in ("events", "redrive"):
            submit(name, root, project, environ, say)
        wait_for(lambda: services.check_ready() and all(site.pids(name) for name in TASKS), START_S)
        yield site, environ


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
    slots = {"TIDE_STACK_WORKER_PORT": str(max(ports) + 1), "TIDE_STACK_WORKER_SLOTS": "3"}
    heaps = {"TIDE_STACK_WORKER_HEAP_MB": "192", "TIDE_STACK_KAFKA_HEAP_MB": "384"}
    kept = {k: v for k, v in os.environ.items() if k in ("TIDE_CACHE", "XDG_CACHE_HOME", "HOME")}
    return settings_from({**kept, **given, **slots, **heaps}, home=root / "stack", project=project)


def free_ports(count: int) -> list[int]:
    """Loopback ports below the system's own range, that nothing listens on now."""
    out: list[int] = []
    port = 21000 + os.getpid() % 8000
    while len(out) < count:
        port += 1
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        out.append(port)
    return out


def write_project(root: Path, project: Path, config: Mapping[str, object], own: StackSettings) -> Path:
    """The project's copy that is submitted, with the addresses of this stack in its config.json."""
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
            "tide.kafka.bootstrap": f"127.0.0.1:{own.kafka_port}",
            "tide.redis.url": f"redis://127.0.0.1:{own.redis_port}/0",
            "tide.sql.dsns": " ".join(
                f"mysql+pymysql://tide:tide@127.0.0.1:{port}/tide"
                for port in (own.mariadb_1_port, own.mariadb_2_port)
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


def wait_for(met: Callable[[], bool], seconds: float) -> None:
    """Raises `ClicktideError` when it does not come true in time."""
    until = time.monotonic() + seconds
    while not met():
        if time.monotonic() > until:
            raise ClicktideError(f"the topologies did not come up within {seconds:.0f} s")
        time.sleep(0.3)
