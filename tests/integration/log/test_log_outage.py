"""Kafka goes away and comes back: every call ends in time, nothing answered is lost, all recovers by itself."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from integration.log.own_broker import BACK_S, OwnBroker, again, need_java

from clicktide.errors import LogUnavailable
from clicktide.log import open_log
from clicktide.log.limits import GIVE_UP_S, REQUEST_TIMEOUT_S
from clicktide.log.port import Log, LogConsumer, Outgoing, TopicPartition
from clicktide.settings import Settings

pytestmark = [pytest.mark.service, pytest.mark.timeout(400)]

SEND_S = 2.0
# On a busy machine a thread may come to its turn late; a hang is longer than this.
LATE_S = 10.0


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnBroker]:
    need_java()
    broker = OwnBroker(tmp_path_factory.mktemp("kafka"))
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()


def take_away(broker: OwnBroker, how: str) -> Callable[[], None]:
    """Stop or kill it; what brings it back."""
    if how == "stopped":
        broker.signal(signal.SIGSTOP)
        return lambda: broker.signal(signal.SIGCONT)
    broker.kill()
    return broker.start


def unavailable(work: Callable[[], object], limit_s: float) -> str | None:
    """What is wrong with how this call ends while the broker is away, or None."""
    started = time.monotonic()
    wrong = None
    try:
        wrong = f"answered {work()!r}"
    except LogUnavailable:
        pass
    except Exception as e:
        wrong = f"raised {e!r}"
    # Without the error: the end of a client that it held may wait for the broker.
    took = time.monotonic() - started
    return wrong or (None if took < limit_s + LATE_S else f"took {took:.1f} s")


def polls_until_unavailable(consumer: LogConsumer) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        consumer.poll(10, 0.1)


def side_by_side(works: dict[str, Callable[[], object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    threads = [
        threading.Thread(target=lambda name=name, work=work: found.__setitem__(name, work()))
        for name, work in works.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


class Caller:
    """One adapter's clients, with a topic of their own and a reader for each call that reads."""

    def __init__(self, broker: OwnBroker, adapter: str, how: str) -> None:
        log: Log = open_log(Settings({"log.adapter": adapter, "kafka.bootstrap": broker.address}))
        self.topic = f"{adapter}-{how}"
        self.place = TopicPartition(self.topic, 0)
        self.admin, self.producer = log.admin(), log.producer()
        again(lambda: self.admin.create_topics({self.topic: 1}))
        self.producer.send([self.record(b"before")], BACK_S)
        self.readers = {
            name: log.consumer(f"{self.topic}-{name}")
            for name in ("commit", "committed", "bounds", "fetch", "poll")
        }
        for reader in self.readers.values():
            reader.assign({self.place: 0})
            while not reader.poll(10, 1):
                pass
            again(lambda reader=reader: reader.commit({self.place: 1}))

    def record(self, value: bytes) -> Outgoing:
        return Outgoing(self.topic, None, value, partition=0)

    def calls(self) -> dict[str, tuple[Callable[[], object], float]]:
        """Every call of the port, and the seconds in which it has to end."""
        place, readers = self.place, self.readers
        return {
            "send": (lambda: self.producer.send([self.record(b"during")], SEND_S), SEND_S),
            "commit": (lambda: readers["commit"].commit({place: 1}), REQUEST_TIMEOUT_S),
            "committed": (lambda: readers["committed"].committed([place]), REQUEST_TIMEOUT_S),
            "bounds": (lambda: readers["bounds"].bounds([place]), REQUEST_TIMEOUT_S),
            "fetch": (lambda: readers["fetch"].fetch(place, [0], SEND_S), SEND_S),
            "topics": (self.admin.topics, REQUEST_TIMEOUT_S),
            "poll": (lambda: polls_until_unavailable(readers["poll"]), 40),
        }

    def recovers(self) -> None:
        place, readers = self.place, self.readers
        again(lambda: self.producer.send([self.record(b"after")], 5))
        again(lambda: readers["commit"].commit({place: 1}))
        assert again(lambda: readers["committed"].committed([place])) == {place: 1}
        assert self.topic in again(self.admin.topics)  # type: ignore[operator]
        found: list[bytes] = []
        deadline = time.monotonic() + BACK_S
        while b"after" not in found:
            assert time.monotonic() < deadline, f"{self.topic}: read {found}"
            found += again(lambda: [v for b in readers["poll"].poll(10, 0.5) for v in b.values])  # type: ignore[operator]
        # Retried by its sender or not, the record in between is there at most once a send.
        assert found.count(b"during") <= 1

    def close(self) -> None:
        for opened in (*self.readers.values(), self.producer, self.admin):
            opened.close()


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_broker_that_goes_away_and_comes_back(broker: OwnBroker, how: str) -> None:
    """Both adapters at the same time: what takes long is to wait for what does not answer."""
    callers = {adapter: Caller(broker, adapter, how) for adapter in ("confluent", "kafka-python")}
    calls = {
        f"{adapter}: {name}": call
        for adapter, caller in callers.items()
        for name, call in caller.calls().items()
    }
    back = take_away(broker, how)
    given_up = time.monotonic() + GIVE_UP_S + 1
    try:
        wrong = side_by_side(
            {
                name: lambda work=work, limit=limit: unavailable(work, limit)
                for name, (work, limit) in calls.items()
            }
        )
        # No clock can be passed in here: what is sent is given up in the middle of an outage, by the client's own.
        time.sleep(max(0.0, given_up - time.monotonic()))
    finally:
        back()
    assert wrong == dict.fromkeys(calls)
    for caller in callers.values():
        caller.recovers()
        caller.close()


def test_what_was_answered_survives_kill(broker: OwnBroker, tmp_path: Path) -> None:
    log = open_log(Settings({"log.adapter": "confluent", "kafka.bootstrap": broker.address}))
    admin, producer = log.admin(), log.producer()
    again(lambda: admin.create_topics({"answered": 1}))
    answered: list[bytes] = []
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            value = b"%d" % number
            try:
                producer.send([Outgoing("answered", None, value, partition=0)], 1)
                answered.append(value)
            except LogUnavailable:
                pass
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while len(answered) < 50:
            time.sleep(0.01)
        broker.kill()
        broker.start()
        before = len(answered)
        deadline = time.monotonic() + BACK_S
        while len(answered) < before + 50:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        stop.set()
        writer.join()
    place = TopicPartition("answered", 0)
    consumer = log.consumer("check")
    again(lambda: consumer.assign({place: 0}))
    end = again(lambda: consumer.bounds([place])[place][1])
    found: list[bytes] = []
    while len(found) < end:  # type: ignore[operator]
        found += again(lambda: [v for b in consumer.poll(1000, 0.5) for v in b.values])  # type: ignore[operator]
    assert set(answered) <= set(found)
    assert [v for v in found if v in set(answered)] == answered or len(found) > len(set(found))
    for opened in (consumer, producer, admin):
        opened.close()
