"""Settings of the real stack: folder, ports, heaps.

Every field has a default that works, and an environment variable ``TIDE_STACK_<FIELD>`` in capitals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import cast

from deploy.stack.errors import StackError

LOOPBACK = "127.0.0.1"
PREFIX = "TIDE_STACK_"
PROJECT = Path(__file__).resolve().parents[2]


def _port(default: int, meaning: str) -> int:
    return field(default=default, metadata={"help": meaning, "low": 1, "high": 65535})


def _megabytes(default: int, meaning: str) -> int:
    return field(default=default, metadata={"help": meaning, "low": 32, "high": 1 << 20})


@dataclass(frozen=True, slots=True, kw_only=True)
class StackSettings:
    """One stack: where it lives and how large its parts may grow (sizes in MiB)."""

    home: Path
    cache: Path
    kafka_port: int = _port(19092, "Kafka's client port")
    kafka_controller_port: int = _port(19093, "Kafka's KRaft controller port")
    kafka_heap_mb: int = _megabytes(512, "Kafka's largest heap, MiB")
    kafka_partitions: int = field(
        default=8,
        metadata={
            "help": "partitions of a topic made without a count",
            "low": 1,
            "high": 4096,
        },
    )
    redis_port: int = _port(16379, "Redis' port")
    redis_memory_mb: int = _megabytes(1024, "Redis refuses writes beyond this, MiB")
    mariadb_1_port: int = _port(13306, "port of the first MariaDB server")
    mariadb_2_port: int = _port(13307, "port of the second MariaDB server")
    mariadb_buffer_mb: int = _megabytes(256, "InnoDB buffer pool of each MariaDB server, MiB")
    zookeeper_port: int = _port(12181, "ZooKeeper's client port")
    nimbus_port: int = _port(6627, "Nimbus' Thrift port")
    supervisor_port: int = _port(6628, "the supervisor's Thrift port")
    worker_port: int = _port(6700, "port of the first worker slot; the others follow it")
    worker_slots: int = field(
        default=6,
        metadata={"help": "worker slots of the supervisor", "low": 1, "high": 64},
    )
    worker_heap_mb: int = _megabytes(256, "largest heap of a worker, MiB")
    daemon_heap_mb: int = _megabytes(192, "largest heap of ZooKeeper, Nimbus and the supervisor each, MiB")
    start_seconds: int = field(
        default=120,
        metadata={
            "help": "a server that does not answer by then has failed",
            "low": 5,
            "high": 3600,
        },
    )

    def folder(self, *parts: str) -> Path:
        """A path under the stack's folder."""
        return self.home.joinpath(*parts)


def settings_from(
    environment: Mapping[str, str], *, home: Path | None = None, project: Path = PROJECT
) -> StackSettings:
    """Settings of the stack of ``project``, by the given environment variables.

    ``home`` (else TIDE_STACK_HOME, else ``.stack`` in the project) is where all data goes. The cache of
    downloaded jars is TIDE_CACHE, else ``clicktide`` in the user's cache folder.
    Raises StackError on an unknown TIDE_STACK_ variable or a value out of range.
    """
    known = {PREFIX + item.name.upper(): item for item in fields(StackSettings) if item.name != "cache"}
    numbers: dict[str, int] = {}
    for name, text in environment.items():
        if not name.startswith(PREFIX):
            continue
        if name not in known:
            raise StackError(f"{name} is no setting of the stack; known: {', '.join(sorted(known))}")
        if name != PREFIX + "HOME":
            numbers[known[name].name] = _number(
                name, text, known[name].metadata["low"], known[name].metadata["high"]
            )
    _refuse_shared_ports(numbers)
    folder = home or Path(environment.get(PREFIX + "HOME") or project / ".stack")
    return StackSettings(home=folder.expanduser().absolute(), cache=cache_folder(environment), **numbers)


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where downloads are kept between checkouts: TIDE_CACHE, else the user's own cache folder."""
    if environment.get("TIDE_CACHE"):
        return Path(environment["TIDE_CACHE"]).expanduser().absolute()
    base = environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME") or "~", ".cache")
    return Path(base, "clicktide").expanduser().absolute()


def _number(name: str, text: str, low: int, high: int) -> int:
    if not text.strip().isdigit() or not low <= int(text) <= high:
        raise StackError(f"{name} is {text!r}; expected a whole number from {low} to {high}")
    return int(text)


def _refuse_shared_ports(numbers: Mapping[str, int]) -> None:
    """Refuse a port that two settings name."""
    owner: dict[int, str] = {}
    for item in fields(StackSettings):
        if item.name.endswith("_port"):
            port = numbers.get(item.name, cast("int", item.default))
            if port in owner:
                first, second = PREFIX + owner[port].upper(), PREFIX + item.name.upper()
                raise StackError(f"{first} and {second} are both {port}; each needs a port of its own")
            owner[port] = item.name
