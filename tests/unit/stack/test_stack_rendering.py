"""Rendered configuration: loopback only, durable, and with the ports of the settings."""

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from deploy.stack.java import java_argv, rolling_log4j2
from deploy.stack.servers.catalogue import every_server
from deploy.stack.servers.kafka import server_properties
from deploy.stack.servers.mariadb import INIT_SQL, my_cnf
from deploy.stack.servers.redis import redis_conf
from deploy.stack.servers.storm import zoo_cfg
from deploy.stack.settings import settings_from
from deploy.storm.home import local_log4j2, storm_yaml

SETTINGS = replace(
    settings_from({"HOME": "/h"}),
    home=Path("/s"),
    kafka_port=1001,
    kafka_controller_port=1002,
    redis_port=1003,
    redis_memory_mb=77,
    zookeeper_port=1004,
    nimbus_port=1005,
    worker_port=2000,
    worker_slots=5,
)
ANY_ADDRESS = ("0.0.0.0", "localhost", "::", "*:")


def pairs(text: str, sign: str) -> dict[str, str]:
    lines = [line.partition(sign) for line in text.splitlines() if sign in line]
    return {key.strip(): value.strip() for key, _, value in lines}


def test_kafka() -> None:
    values = pairs(server_properties(SETTINGS, Path("/s/kafka/data")), "=")
    assert values["advertised.listeners"] == "CLIENT://127.0.0.1:1001"
    assert values["listeners"] == "CLIENT://127.0.0.1:1001,CONTROLLER://127.0.0.1:1002"
    assert values["auto.create.topics.enable"] == "false"
    assert values["log.message.timestamp.type"] == "CreateTime"
    assert values["log.dirs"] == "/s/kafka/data"


def test_redis() -> None:
    lines = redis_conf(SETTINGS, Path("/s/a b"), Path("/s/l")).splitlines()
    for line in (
        "bind 127.0.0.1",
        "port 1003",
        'dir "/s/a b"',
        "appendonly yes",
        "appendfsync everysec",
        "maxmemory 77mb",
        "lazyfree-lazy-expire yes",
        "maxmemory-policy noeviction",
    ):
        assert line in lines


def test_mariadb() -> None:
    values = pairs(my_cnf(SETTINGS, 1006, Path("/s/m"), Path("/s/l")), "=")
    assert values["bind-address"] == "127.0.0.1"
    assert values["port"] == "1006"
    assert values["tmpdir"] == "/s/m/tmp", "two servers that share one remove each other's tables"
    assert values["innodb-flush-log-at-trx-commit"] == "1"
    assert values["character-set-server"] == "utf8mb4"
    assert all(line.endswith(";") for line in INIT_SQL.splitlines()), "the server reads one statement a line"


def test_zookeeper() -> None:
    values = pairs(zoo_cfg(1004, Path("/s/z")), "=")
    assert (values["clientPortAddress"], values["clientPort"]) == ("127.0.0.1", "1004")
    assert values["admin.enableServer"] == "false"


def test_storm() -> None:
    values = {key: json.loads(value) for key, value in pairs(storm_yaml(SETTINGS), ": ").items()}
    assert values["storm.zookeeper.servers"] == values["nimbus.seeds"] == ["127.0.0.1"]
    assert (values["storm.zookeeper.port"], values["nimbus.thrift.port"]) == (1004, 1005)
    assert values["supervisor.slots.ports"] == [2000, 2001, 2002, 2003, 2004]
    assert "-Xmx256m" in values["worker.childopts"]


@pytest.mark.parametrize("text", [rolling_log4j2(Path("/s/l")), local_log4j2(Path("/s/l"))])
def test_log_configurations_are_xml(text: str) -> None:
    root = ET.fromstring(text.encode())  # noqa: S314 - our own text
    assert root.find("Loggers/Root") is not None


def test_nothing_listens_beyond_the_machine() -> None:
    texts = (
        server_properties(SETTINGS, Path("/d")),
        redis_conf(SETTINGS, Path("/d"), Path("/l")),
        my_cnf(SETTINGS, 1, Path("/d"), Path("/l")),
        zoo_cfg(1, Path("/d")),
        storm_yaml(SETTINGS),
    )
    assert not [word for text in texts for word in ANY_ADDRESS if word in text]


def test_servers_start_after_what_they_need_and_share_no_port() -> None:
    servers = every_server(SETTINGS)
    names = [server.name for server in servers]
    for index, server in enumerate(servers):
        assert set(server.after) <= set(names[:index])
    ports = [port for server in servers for port in server.ports().values()]
    assert len(ports) == len(set(ports))
    assert {server.group for server in servers} == {"kafka", "redis", "mariadb", "storm"}


def test_java_command_line() -> None:
    argv = java_argv("a.Main", heap_mb=100, class_path=["x", "y/*"], properties={"k": "v"}, arguments=["z"])
    assert argv[0] == "java"
    assert argv[-4:] == ["-cp", "x:y/*", "a.Main", "z"]
    assert {"-Xmx100m", "-Dk=v"} <= set(argv)
