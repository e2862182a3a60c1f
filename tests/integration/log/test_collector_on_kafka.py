"""The collector on a real Kafka, kill -9 of either at 2,000 events/s: every event that was accepted is on the log, and the pipeline
takes each for one event, however often its sender had to send it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import orjson
import pytest
from integration.log.own_broker import OwnBroker, need_java
from redis_server import running

from clicktide import topics
from clicktide.client import Client
from clicktide.log import open_log
from clicktide.log.port import TopicPartition
from clicktide.parse import Parser
from clicktide.redisstore.store import RedisStore
from clicktide.settings import Settings
from services.server import listen

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]
ROOT = Path(__file__).resolve().parents[3]
RATE, SECONDS, PARTITIONS = 2000, 5, 2
PATIENCE_S = 90


class Collector:
    """A collector process that keeps its port over `kill` and `start`."""

    def __init__(self, folder: Path, given: dict[str, object]) -> None:
        with listen("127.0.0.1", 0) as free:
            self.port = free.getsockname()[1]
        own = {"TIDE_" + k.upper().replace(".", "_"): str(v) for k, v in given.items()}
        kept = {k: v for k, v in os.environ.items() if not k.startswith("TIDE_")}
        path = f"{ROOT}{os.pathsep}{ROOT / 'src'}"
        self._environ = {**kept, **own, "PYTHONPATH": path, "TIDE_CONFIG": "none"}
        self._folder = folder
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        with (self._folder / "collector.log").open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "services", "collector", "--port", str(self.port)],
                env=self._environ,
                stdout=out,
                stderr=out,
                cwd=self._folder,
            )

    def ready(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/health/ready").status_code == 200
        except httpx.HTTPError:
            return False

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def until(look, what):
    deadline = time.monotonic() + PATIENCE_S
    while not look():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


def records(log):
    """All records of the events topic: (partition, offset, timestamp, value)."""
    consumer = log.consumer("test")
    partitions = [TopicPartition("tide.events", p) for p in range(PARTITIONS)]
    bounds = consumer.bounds(partitions)
    consumer.assign({p: start for p, (start, _) in bounds.items()})
    want, out = sum(end - start for start, end in bounds.values()), []
    deadline = time.monotonic() + PATIENCE_S
    while len(out) < want:
        assert time.monotonic() < deadline
        for batch in consumer.poll(10_000, 1.0):
            out += [
                (batch.partition, offset, at, value)
                for offset, at, value in zip(batch.offsets, batch.timestamps, batch.values, strict=True)
            ]
    consumer.close()
    return out


def effective(found, folder):
    """How many of the records the pipeline's claims take for events of their own."""
    with running(folder) as redis:
        settings = Settings({"redis.url": redis.url})
        parser, store = Parser(settings), RedisStore(settings)
        total = 0
        for i in range(0, len(found), 500):
            rows = [
                parser.row(v.decode(), offset, at, p, "topic0") for p, offset, at, v in found[i : i + 500]
            ]
            applied = store.apply(rows)
            assert (applied.conflicts, applied.replays, applied.failed) == (frozenset(), frozenset(), {})
            total += len(rows) - len(applied.duplicates)
    return total


def test_what_was_accepted_is_there_once_over_kills_of_broker_and_collector(tmp_path):
    need_java()
    (tmp_path / "redis").mkdir()
    broker = OwnBroker(tmp_path / "kafka")
    broker.start()
    given = {"log.adapter": "confluent", "kafka.bootstrap": broker.address, "http.ack_timeout_s": 2.0}
    log = open_log(Settings(given))
    collector = Collector(tmp_path, given)
    try:
        log.admin().create_topics({f"tide.{name}": PARTITIONS for name in topics.ALL})
        collector.start()
        until(collector.ready, "the collector")
        refused: list[object] = []
        client = Client(
            f"http://127.0.0.1:{collector.port}",
            queue_events=100_000,
            batch_events=200,
            linger_s=0.02,
            on_rejected=lambda *why: refused.append(why),
        )
        ids: list[str | None] = []
        feeding = threading.Thread(target=feed, args=(client, ids))
        feeding.start()
        for strike in (collector.kill, broker.kill):
            enough = client.counters.accepted + RATE // 4
            until(lambda least=enough: client.counters.accepted > least, "accepted events")
            strike()
            (collector if strike == collector.kill else broker).start()
        feeding.join(PATIENCE_S)
        assert client.close(PATIENCE_S)
        counters = client.counters
        found = records(log)
    finally:
        collector.kill()
        broker.kill()
    assert (counters.accepted, counters.dropped, refused) == (RATE * SECONDS, 0, [])
    assert counters.retries > 0
    stored = [orjson.loads(value)["event_id"] for *_, value in found]
    assert set(stored) == set(ids)
    assert effective(found, tmp_path / "redis") == len(ids)
    print(f"{counters}; on the log more than once: {len(stored) - len(set(stored))}")


def feed(client, ids):
    """An open loop at RATE events a second."""
    start = time.monotonic()
    while len(ids) < RATE * SECONDS:
        due = min(RATE * SECONDS, int((time.monotonic() - start) * RATE))
        ids += [
            client.send(type="view", user_id=f"u{n % 97}", event_id=f"k-{n}") for n in range(len(ids), due)
        ]
        time.sleep(0.01)
