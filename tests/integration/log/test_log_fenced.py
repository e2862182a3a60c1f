"""A cluster that for a moment names no broker, as one of its brokers does that has just come back: every client recovers by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import pytest
from integration.log import own_broker
from integration.log.fenced import Way
from integration.log.own_broker import OwnBroker, need_java
from ports import free_ports

from clicktide.errors import LogUnavailable
from clicktide.log import open_log
from clicktide.log.port import Outgoing, TopicPartition
from clicktide.settings import Settings

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]
BACK_S = 60.0
again = partial(own_broker.again, seconds=BACK_S)


@pytest.fixture(scope="module")
def fenced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    need_java()
    (port,) = free_ports(1)
    broker = OwnBroker(
        tmp_path_factory.mktemp("kafka"), {"advertised.listeners": f"CLIENT://127.0.0.1:{port}"}
    )
    host, _, its = broker.address.partition(":")
    way = Way((host, int(its)), port)
    try:
        broker.start()
        yield way
    finally:
        way.close()
        broker.kill()


@pytest.mark.parametrize("adapter", ["confluent", "kafka-python"])
def test_clients_outlive_a_cluster_that_names_no_broker(fenced: Way, adapter: str) -> None:
    log = open_log(Settings({"log.adapter": adapter, "kafka.bootstrap": f"127.0.0.1:{fenced.port}"}))
    place = TopicPartition(f"fenced-{adapter}", 0)
    admin, producer, consumer = log.admin(), log.producer(), log.consumer("g")

    def record(value: bytes) -> Outgoing:
        return Outgoing(place.topic, None, value, partition=0)

    again(lambda: admin.create_topics({place.topic: 1}))
    producer.send([record(b"before")], BACK_S)
    consumer.assign({place: 0})
    assert again(lambda: consumer.committed([place])) == {}
    while not consumer.poll(10, 1):
        pass
    with fenced.naming_nobody():
        told = fenced.told
        fenced.cut()
        deadline = time.monotonic() + 30
        while fenced.told < told + 8:  # those who are told so come again, and have new connections meanwhile
            assert time.monotonic() < deadline, "nobody asks"
            for work in (
                lambda: consumer.poll(10, 0.2),
                lambda: producer.send([record(b"during")], 1),
                lambda: consumer.commit({place: 1}),
                lambda: consumer.bounds([place]),
                admin.topics,
            ):
                try:
                    work()
                except LogUnavailable:
                    continue
    again(lambda: producer.send([record(b"after")], 5))
    again(lambda: consumer.commit({place: 1}))
    assert again(lambda: consumer.committed([place])) == {place: 1}
    assert place.topic in again(admin.topics)  # type: ignore[operator]
    assert again(lambda: consumer.bounds([place]))[place][0] == 0  # type: ignore[index]
    found: list[bytes] = []
    deadline = time.monotonic() + BACK_S
    while b"after" not in found:
        assert time.monotonic() < deadline, f"read {found}"
        found += again(lambda: [v for b in consumer.poll(10, 0.5) for v in b.values])  # type: ignore[operator]
    assert again(lambda: consumer.fetch(place, [0], 5))[0].value == b"before"  # type: ignore[index]
    for opened in (consumer, producer, admin):
        opened.close()
