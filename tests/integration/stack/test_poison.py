"""A record that kills its worker, on the real Storm, Kafka, Redis and MariaDB: it alone is dead, all others are stored."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from poison_project import MARK, project
from unit.core.making import raw

from bench.scale import workers_of
from clicktide import topics
from clicktide.log import open_log
from clicktide.log.port import Outgoing, TopicPartition
from clicktide.settings import Settings
from clicktide.sql import SqlStore
from deploy.prepare import make_topics, migrate_shards
from deploy.stack.stack import Stack

# Four minutes on a machine that has other work: not for every run.
LONG = os.environ.get("CLICKTIDE_LONG_TESTS") == "1"
pytestmark = [
    pytest.mark.service,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not LONG, reason="long: CLICKTIDE_LONG_TESTS=1 runs it"),
]

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def options_of(stack: Stack) -> dict[str, str]:
    s = stack.settings
    dsns = [
        f"mysql+pymysql://tide:tide@127.0.0.1:{port}/tide" for port in (s.mariadb_1_port, s.mariadb_2_port)
    ]
    return {
        "tide.log.adapter": "confluent",
        "tide.kafka.bootstrap": f"127.0.0.1:{s.kafka_port}",
        "tide.redis.url": f"redis://127.0.0.1:{s.redis_port}/0",
        "tide.sql.dsns": " ".join(dsns),
        "tide.commit.delay_s": "1.0",
        "tide.retry.poison_fails": "2",
    }


def test_it_alone_is_dead(stack: Stack, tide: Command, storm: Command, tmp_path: Path) -> None:
    options = options_of(stack)
    settings = Settings({k.removeprefix("tide."): v for k, v in options.items()})
    make_topics(settings)
    migrate_shards(settings)
    log, sql = open_log(settings), SqlStore(settings)
    producer, admin, consumer = log.producer(), log.admin(), log.consumer("test")
    workers, sent = set(), []

    def send(event_id: str, partition: int, value: bytes | None = None) -> None:
        now = int(time.time() * 1000)
        made = value or raw(event_id, user_id=f"u-{event_id}", occurred_at=now)
        producer.send([Outgoing("tide.events", b"u", made, (), partition)], 20)
        if value is None:
            sent.append(event_id)

    def stored() -> list[str]:
        return [e for i in range(2) for (e,) in sql.scan_events(i, ("event_id",))]

    for i in range(500):
        send(f"e{i}", 0)
        if i == 200:
            send("", 0, MARK + b"\xff")
    pairs = [word for k, v in options.items() for word in ("-o", f"{k}={v}")]
    try:
        done = tide("sparse", "submit", "-n", "events", "-e", "stack", *pairs, cwd=project(tmp_path / "p"))
        assert done.returncode == 0, done.stdout + done.stderr
        deadline, began = time.monotonic() + 1500, time.monotonic()
        dead = {TopicPartition("tide.dead", p): 0 for p in range(admin.topics()["tide.dead"].partitions)}
        while sum(end - first for first, end in admin.bounds(list(dead)).values()) == 0:
            assert time.monotonic() < deadline
            send(f"fed-{len(sent)}", 1)
            workers |= set(workers_of(stack.settings, "events"))
            time.sleep(0.5)
        took, load = time.monotonic() - began, os.getloadavg()[1]
        print(f"dead after {took:.0f} s and {len(workers) - 1} workers' deaths, load {load:.1f}")
        while len(set(stored())) < len(sent):
            assert time.monotonic() < deadline
            time.sleep(1)
        assert sorted(stored()) == sorted(sent)
        consumer.assign(dead)
        batches = [b for _ in range(20) for b in consumer.poll(100, 0.5)]
        assert {v for b in batches for v in b.values} == {MARK + b"\xff"}
        headers = dict(batches[0].headers[0])
        assert headers[topics.ERROR_CODE] == b"kills_worker"
        assert headers[topics.ORIGIN] == b"tide.events:0:201"
    finally:
        storm("kill", "events", "-w", "0")
