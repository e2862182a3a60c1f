"""Every adapter of the log port, opened for a test: what the contract suite is run over."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from clicktide.log import open_log
from clicktide.log.faults import FaultyLog
from clicktide.log.port import (
    Batch,
    Log,
    LogAdmin,
    LogConsumer,
    LogProducer,
    Outgoing,
    Record,
    TopicPartition,
)
from clicktide.settings import Settings

BOOTSTRAP = os.environ.get("TIDE_KAFKA_BOOTSTRAP", "127.0.0.1:19092")
WAIT_S = 10.0  # for what has to happen; only a failing test waits so long
# Kafka drops what its own timestamp says is older than the retention, and tests write timestamps of long ago.
FOR_EVER_MS = 100 * 366 * 86_400_000

ADAPTERS = [
    pytest.param("embedded", id="embedded"),
    pytest.param("faulty", id="faulty"),
    pytest.param("confluent", id="confluent", marks=pytest.mark.service),
    pytest.param("kafka-python", id="kafka-python", marks=pytest.mark.service),
]


def need_broker() -> None:
    """Skip the test without a broker; fail it where one has to be."""
    host, _, port = BOOTSTRAP.split(",")[0].rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no Kafka at {BOOTSTRAP}")
        pytest.skip(f"no Kafka at {BOOTSTRAP}")


def open_adapter(name: str, folder: Path, bootstrap: str = BOOTSTRAP) -> Log:
    """The named adapter; the embedded one and its wrapper in `folder`."""
    if name in ("embedded", "faulty"):
        log = open_log(Settings({"log.path": str(folder / "log.db")}))
        return FaultyLog(log) if name == "faulty" else log
    return open_log(Settings({"log.adapter": name, "kafka.bootstrap": bootstrap}))


@dataclass
class Case:
    """One log for one test, with topics of its own; closes what it opened."""

    log: Log
    adapter: str = "embedded"
    prefix: str = field(default_factory=lambda: f"test-{uuid.uuid4().hex[:12]}.")
    quiet_s: float = 0.3  # for what must not happen; the embedded log would show it within milliseconds
    _opened: list[LogConsumer | LogProducer | LogAdmin] = field(default_factory=list)
    _admin: LogAdmin | None = None
    _producer: LogProducer | None = None
    _topics: list[str] = field(default_factory=list)

    @property
    def admin(self) -> LogAdmin:
        if self._admin is None:
            self._admin = self.log.admin()
            self._opened.append(self._admin)
        return self._admin

    @property
    def producer(self) -> LogProducer:
        if self._producer is None:
            self._producer = self.log.producer()
            self._opened.append(self._producer)
        return self._producer

    def consumer(self, group: str = "g") -> LogConsumer:
        consumer = self.log.consumer(self.prefix + group)
        self._opened.append(consumer)
        return consumer

    def topic(self, partitions: int = 1, name: str = "t") -> str:
        """A topic that exists from now to the end of the test."""
        name = self.prefix + name
        self.admin.create_topics({name: partitions}, FOR_EVER_MS)
        self._topics.append(name)
        return name

    def write(self, topic: str, *values: bytes, partition: int = 0) -> list[int]:
        """Write these to one partition; their offsets."""
        placed = self.producer.send([Outgoing(topic, None, v, partition=partition) for v in values], WAIT_S)
        return [p.offset for p in placed]

    def close(self) -> None:
        if self._topics:
            self.admin.delete_topics(self._topics)
        for opened in self._opened:
            opened.close()


def open_case(adapter: str, folder: Path) -> Iterator[Case]:
    """For a fixture: the case, closed afterwards."""
    if adapter not in ("embedded", "faulty"):
        need_broker()
    case = Case(open_adapter(adapter, folder), adapter)
    if adapter in ("embedded", "faulty"):
        case.quiet_s = 0.03
    yield case
    case.close()


def records_of(batches: list[Batch]) -> list[Record]:
    """Batches as records, after a look at their form."""
    found = []
    for b in batches:
        columns = [b.offsets, b.timestamps, b.keys, b.values]
        assert len(b.offsets) > 0
        assert {len(c) for c in columns} == {len(b.offsets)}
        assert b.headers is None or len(b.headers) == len(b.offsets)
        headers = b.headers or [()] * len(b.offsets)
        found += [Record(b.topic, b.partition, *row) for row in zip(*columns, headers, strict=True)]
    return found


def read(consumer: LogConsumer, count: int, max_records: int = 1000) -> list[Record]:
    """Poll until so many records have come; fails when they do not."""
    found: list[Record] = []
    deadline = time.monotonic() + WAIT_S
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} records came"
        batches = consumer.poll(max_records, 0.2)
        assert sum(len(b.offsets) for b in batches) <= max_records
        found += records_of(batches)
    return found


def values(records: list[Record]) -> list[bytes]:
    return [r.value for r in records]


def at(topic: str, partition: int = 0) -> TopicPartition:
    return TopicPartition(topic, partition)
