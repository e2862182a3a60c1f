"""The servers: durable, on the loopback address only, started again after a crash, gone after `down`."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pymysql
import pytest
from confluent_kafka import Consumer, Producer
from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from redis import Redis

from deploy.stack.errors import StackError
from deploy.stack.process import descendants, every_process
from deploy.stack.servers.mariadb import DATABASE, PASSWORD, USER
from deploy.stack.stack import Stack

pytestmark = [pytest.mark.service, pytest.mark.timeout(600)]

QUIET = {"log_level": 0}


def redis_of(stack: Stack) -> Redis:
    return Redis(host="127.0.0.1", port=stack.settings.redis_port, socket_timeout=5)


def sql_of(stack: Stack, number: int) -> pymysql.Connection:
    port = (stack.settings.mariadb_1_port, stack.settings.mariadb_2_port)[number - 1]
    return pymysql.connect(
        host="127.0.0.1", port=port, user=USER, password=PASSWORD, database=DATABASE, autocommit=True
    )


def make_topic(stack: Stack, name: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=stack.server("kafka").address)
    admin.create_topics([NewTopic(name, num_partitions=1, replication_factor=1)])
    admin.close()


def produce(stack: Stack, topic: str, value: bytes) -> None:
    errors: list[object] = []
    producer = Producer({"bootstrap.servers": stack.server("kafka").address, "acks": "all", **QUIET})
    producer.produce(topic, value, on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(30) == 0
    assert errors == [None]


def consume(stack: Stack, topic: str, count: int) -> list[bytes]:
    settings = {"bootstrap.servers": stack.server("kafka").address, "group.id": f"g-{time.time_ns()}"}
    consumer = Consumer({**settings, "auto.offset.reset": "earliest", **QUIET})
    consumer.subscribe([topic])
    found: list[bytes] = []
    deadline = time.monotonic() + 30
    while len(found) < count and time.monotonic() < deadline:
        message = consumer.poll(0.2)
        if message is not None and message.error() is None:
            found.append(message.value())
    consumer.close()
    return found


def listening(pids: set[int]) -> set[str]:
    """Hex addresses that the processes listen on, IPv4 and IPv6."""
    sockets = set()
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            # A running server closes what it no longer needs while one looks.
            with suppress(FileNotFoundError):
                target = str(entry.readlink())
                if target.startswith("socket:["):
                    sockets.add(target[8:-1])
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in sockets:
                found.add(fields[1].split(":")[0])
    return found


def test_up_again_starts_nothing(stack: Stack) -> None:
    before = {status.name: status.pid for status in stack.status()}
    assert stack.up() == {}
    after = stack.status()
    assert {status.name: status.pid for status in after} == before
    assert {status.state for status in after} <= {"up", "starting"}  # one may answer late
    assert all(status.rss > 0 for status in after)


def test_nothing_listens_beyond_the_machine(stack: Stack) -> None:
    pids = {status.pid for status in stack.status() if status.pid}
    assert len(pids) == 7
    assert listening(pids) == {"0100007F"}


def test_kafka_keeps_what_it_acknowledged(stack: Stack) -> None:
    topic = f"kept-{time.time_ns()}"
    make_topic(stack, topic)
    produce(stack, topic, b"one")
    kafka = stack.server("kafka")
    kafka.kill()
    assert kafka.pid is None
    assert not kafka.answers()
    stack.up()
    produce(stack, topic, b"two")
    assert consume(stack, topic, 2) == [b"one", b"two"]


def test_kafka_makes_no_topic_by_accident(stack: Stack) -> None:
    errors: list[object] = []
    producer = Producer(
        {"bootstrap.servers": stack.server("kafka").address, "message.timeout.ms": 3000, **QUIET}
    )
    producer.produce("never-made", b"x", on_delivery=lambda error, _: errors.append(error))
    producer.flush(15)
    assert errors
    assert errors[0] is not None


def test_redis_is_durable_and_evicts_nothing(stack: Stack) -> None:
    with redis_of(stack) as client:
        settings = client.config_get("append*", "maxmemory*")
        assert (settings["appendonly"], settings["appendfsync"]) == ("yes", "everysec")
        assert settings["maxmemory-policy"] == "noeviction"
        assert int(settings["maxmemory"]) == stack.settings.redis_memory_mb * 2**20
        client.set("kept", "1")
        deadline = time.monotonic() + 10
        while client.info("persistence")["aof_pending_bio_fsync"] and time.monotonic() < deadline:
            time.sleep(0.05)
    stack.server("redis").kill()
    stack.up()
    with redis_of(stack) as client:
        assert client.get("kept") == b"1"


@pytest.mark.parametrize("number", [1, 2])
def test_mariadb_is_durable_and_its_user_confined(stack: Stack, number: int) -> None:
    with sql_of(stack, number) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT @@innodb_flush_log_at_trx_commit, @@character_set_server, @@time_zone")
        assert cursor.fetchone() == (1, "utf8mb4", "+00:00")
        cursor.execute("CREATE TABLE IF NOT EXISTS kept (id INT PRIMARY KEY)")
        cursor.execute("REPLACE INTO kept VALUES (7)")
        cursor.execute("CREATE DATABASE IF NOT EXISTS tide_more")
        with pytest.raises(pymysql.MySQLError):
            cursor.execute("CREATE DATABASE other")
    stack.server(f"mariadb-{number}").kill()
    stack.up()
    with sql_of(stack, number) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id FROM kept")
        assert cursor.fetchone() == (7,)


def test_a_paused_server_is_seen_and_resumed(stack: Stack) -> None:
    redis = stack.server("redis")
    redis.pause()
    try:
        assert {status.name: status.state for status in stack.status()}["redis"] == "paused"
        began = time.monotonic()
        assert not redis.answers()
        assert time.monotonic() - began < 15, "tries again what hangs"
    finally:
        redis.resume()
    redis.wait(lambda handle: handle.answers())


def test_a_taken_port_is_named(stack: Stack, tmp_path: Path) -> None:
    other = Stack(replace(stack.settings, home=tmp_path / "other"))
    with pytest.raises(StackError, match=r"redis: port \d+ is taken.*TIDE_STACK_REDIS_PORT"):
        other.up(["redis"])
    assert other.running() == []


def test_a_server_that_cannot_start_says_why(stack: Stack) -> None:
    redis = stack.server("redis")
    redis.stop()
    appendonly = next((redis.server.folder / "data" / "appendonlydir").glob("*.manifest"))
    good = appendonly.read_text()
    appendonly.write_text("nonsense\n")
    try:
        with pytest.raises(StackError, match="redis ended while starting"):
            stack.up(["redis"])
    finally:
        appendonly.write_text(good)
    stack.up(["redis"])


def test_down_leaves_nothing_and_up_brings_everything_back(stack: Stack, tide: Callable[..., object]) -> None:
    topic = f"whole-{time.time_ns()}"
    make_topic(stack, topic)
    produce(stack, topic, b"kept")
    with redis_of(stack) as client:
        client.set("whole", "kept")
    refused = tide("stack", "wipe", "--yes")
    assert refused.returncode == 1
    assert "still running: kafka" in refused.stderr
    pids = {status.pid for status in stack.status() if status.pid}
    below = {stat.pid for stat in descendants(every_process(), pids)}
    assert tide("stack", "down").returncode == 0
    assert not {stat.pid for stat in every_process() if stat.runs} & (pids | below)
    assert stack.running() == []
    asked = tide("stack", "wipe")
    assert asked.returncode != 0
    assert stack.settings.home.exists(), "no answer is not a yes"
    shown = tide("stack", "status")
    assert shown.returncode == 1
    assert shown.stdout.count(" down ") == 7
    done = tide("stack", "up")
    assert done.returncode == 0, done.stderr
    assert stack.server("kafka").address in done.stdout
    assert consume(stack, topic, 1) == [b"kept"]
    with redis_of(stack) as client:
        assert client.get("whole") == b"kept"
