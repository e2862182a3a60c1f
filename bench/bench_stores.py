"""Stores: what an event costs Redis, MariaDB, and the Python in front of them; nothing else runs in the bench.

Slices are those of the stack: consecutive records of one of 16 partitions, which hold the users of 4 of 64 shards. The
servers are its own, with the stack's configuration: AOF every second, a flush at every commit. Costs are CPU seconds by
/proc, which compare between runs also on a machine that does other things; rates do not.
"""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from bench import machine
from bench.generator import Mix, events
from clicktide.parse import Parser, Rejection, topic_digest
from clicktide.redisstore.client import connect
from clicktide.redisstore.store import RedisStore
from clicktide.row import SHARD, Row
from clicktide.settings import Settings
from clicktide.shards import partition_of
from clicktide.sql import SqlStore, migrate
from deploy.stack.servers.base import Server
from deploy.stack.servers.mariadb import MariaDB, dsn
from deploy.stack.servers.redis import Redis
from deploy.stack.settings import StackSettings

PARTITIONS = 16
RATE = 35_000.0  # events a second of event time: how many fall into one bucket
_START_S = 60.0


class Cost(NamedTuple):
    """CPU seconds per million events of the server and of this process; `bytes` an event that the server wrote down."""

    server: float
    client: float
    bytes: float


def slices(count: int, size: int, seed: int, settings: Settings) -> list[list[Row]]:
    """`count` events as rows, in slices of up to `size` records of one partition, in the order they get full."""
    parser = Parser(settings)
    digest = topic_digest("stores" + "0" * 26)
    open_slices: list[list[Row]] = [[] for _ in range(PARTITIONS)]
    offsets = [itertools.count() for _ in range(PARTITIONS)]
    out = []
    made = events(seed, rate=RATE, start_ms=int(time.time() * 1000) - 60_000, run=f"s{seed}", mix=Mix())
    for record in itertools.islice(made, count):
        partition = partition_of(record.user_id.encode(), PARTITIONS)
        row = parser.row(record.value, next(offsets[partition]), record.at, partition, digest)
        if isinstance(row, Rejection):
            raise TypeError(f"the generator made {row}")
        open_slices[partition].append(row)
        if len(open_slices[partition]) == size:
            out.append(open_slices[partition])
            open_slices[partition] = []
    return out + [rest for rest in open_slices if rest]


@contextmanager
def servers(folder: Path) -> Iterator[tuple[Settings, dict[str, list[int]]]]:
    """A Redis and two MariaDB servers under `folder`; gives settings that point to them, and their pids by name."""
    ports = [_free_port() for _ in range(3)]
    stack = StackSettings(
        home=folder, cache=folder, redis_port=ports[0], mariadb_1_port=ports[1], mariadb_2_port=ports[2]
    )
    redis, *shards = Redis(stack), MariaDB(1, ports[1], stack), MariaDB(2, ports[2], stack)
    with ExitStack() as running:
        pids = {"redis": [running.enter_context(_running(redis))]}
        pids["mariadb"] = [running.enter_context(_running(server)) for server in shards]
        dsns = [dsn(server) for server in shards]
        for one in dsns:
            migrate(one)
        yield Settings({"redis.url": f"redis://{redis.address}/0", "sql.dsns": " ".join(dsns)}), pids


def redis_cost(settings: Settings, pids: Sequence[int], parts: Sequence[Sequence[Row]]) -> Cost:
    """Apply the slices, one after the other."""
    store = RedisStore(settings)
    client = connect(settings)

    def written() -> int:
        return int(client.info("persistence")["aof_current_size"])

    return _cost(pids, parts, store.apply, written)


def sql_cost(settings: Settings, pids: Sequence[int], parts: Sequence[Sequence[Row]]) -> Cost:
    """Write the slices, one after the other, a transaction a DSN each."""
    store = SqlStore(settings)

    def write(rows: Sequence[Row]) -> None:
        by_dsn: dict[int, list[Row]] = {}
        for row in rows:
            by_dsn.setdefault(store.dsn_of(row[SHARD]), []).append(row)
        for index, its in by_dsn.items():
            store.write(index, its)

    def written() -> int:
        def ask(connection: object) -> int:
            found = connection.exec_driver_sql("SHOW GLOBAL STATUS LIKE 'Innodb_os_log_written'").one()  # type: ignore[attr-defined]
            return int(found[1])

        return sum(one.read(ask) for one in store.dsns)

    try:
        return _cost(pids, parts, write, written)
    finally:
        store.close()


def _cost(
    pids: Sequence[int],
    parts: Sequence[Sequence[Row]],
    work: Callable[[Sequence[Row]], object],
    written: Callable[[], int],
) -> Cost:
    count, bytes_before = sum(map(len, parts)), written()
    server, client = sum(map(_cpu_s, pids)), time.process_time()
    for rows in parts:
        work(rows)
    client = time.process_time() - client
    server = sum(map(_cpu_s, pids)) - server
    return Cost(server / count * 1e6, client / count * 1e6, (written() - bytes_before) / count)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / machine.TICKS


@contextmanager
def _running(server: Server) -> Iterator[int]:
    server.out.parent.mkdir(parents=True, exist_ok=True)
    server.prepare()
    with server.out.open("ab") as out:
        process = subprocess.Popen(server.argv(), stdout=out, stderr=out, env=server.environment())
    try:
        deadline = time.monotonic() + _START_S
        while not server.answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise OSError(f"{server.name} does not answer; see {os.path.relpath(server.log)}")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
