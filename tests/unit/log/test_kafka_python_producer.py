"""When the kafka-python adapter replaces its client, and what those who send meanwhile are told."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from kafka.errors import KafkaConnectionError, KafkaTimeoutError
from kafka.future import Future

from clicktide.errors import LogUnavailable, UnknownTopic
from clicktide.log.kafka import Cluster
from clicktide.log.kafka_python import producer as module
from clicktide.log.kafka_python.producer import KafkaPythonProducer
from clicktide.log.port import Outgoing, Placed
from clicktide.settings import Settings

RECORDS = [Outgoing("t", None, b"a"), Outgoing("t", None, b"b")]
WRITTEN = [Placed(0, 0), Placed(0, 1)]


class Answer(Future):
    """As kafka-python's, which is waited for by `get`."""

    def get(self, timeout: float) -> Any:
        if not self.is_done:
            raise KafkaTimeoutError(f"Timeout after waiting for {timeout} secs.")
        if self.exception is not None:
            raise self.exception
        return self.value


class Client:
    """A KafkaProducer: writes at once, or keeps what it is given until it is told what becomes of it."""

    def __init__(self, *, writes: bool) -> None:
        self.writes, self.given, self.forced, self.closed = writes, [], False, False
        self._sender = SimpleNamespace(force_close=self._force)

    def _force(self) -> None:
        self.forced = True

    def send(self, _topic: str, **_what: Any) -> Answer:
        answer = Answer()
        self.given.append(answer)
        if self.writes:
            answer.success(SimpleNamespace(partition=0, offset=len(self.given) - 1))
        return answer

    def close(self, timeout: float) -> None:
        if not self.forced and any(not answer.is_done for answer in self.given):
            raise KafkaTimeoutError(f"Timeout waiting for future: {timeout}")
        self.closed = True


class Brokers:
    """What the adapter opens: clients one after the other, and an admin that answers while the brokers are there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *clients: Client) -> None:
        self.clients, self.opened, self.up, self.asked = list(clients), 0, True, 0
        monkeypatch.setattr(module, "KafkaProducer", self._open)
        monkeypatch.setattr(module, "KafkaPythonAdmin", lambda *_: self)
        self.producer = KafkaPythonProducer(Cluster.of(Settings({"kafka.bootstrap": "localhost:1"})))

    def _open(self, **_conf: Any) -> Client:
        self.opened += 1
        return self.clients[self.opened - 1]

    def counts(self) -> dict[str, int]:
        self.asked += 1
        if not self.up:
            raise LogUnavailable("Kafka: ask for the topics")
        return {"t": 1}

    def close(self) -> None:
        pass


def test_after_records_that_were_given_up_with_nobody_waiting_another_client_writes(monkeypatch):
    stuck = Client(writes=False)
    brokers = Brokers(monkeypatch, stuck, Client(writes=True))
    with pytest.raises(LogUnavailable):
        brokers.producer.send(RECORDS, 0.01)
    with pytest.raises(LogUnavailable):
        brokers.producer.send(RECORDS, 0.01)
    assert brokers.opened == 1, "as long as it may still write them, it is left alone"
    stuck.given[0].failure(KafkaTimeoutError("Expiring 1 record(s)"))
    assert brokers.producer.send(RECORDS, 5) == WRITTEN
    assert (stuck.forced, stuck.closed) == (True, True)


def test_a_client_that_fails_at_once_is_replaced_too(monkeypatch):
    first = Client(writes=True)
    brokers = Brokers(monkeypatch, first, Client(writes=True))
    assert brokers.producer.send(RECORDS, 5) == WRITTEN
    first.send = lambda _topic, **_what: failed(KafkaConnectionError("lost"))
    with pytest.raises(LogUnavailable):
        brokers.producer.send(RECORDS, 5)
    assert brokers.producer.send(RECORDS, 5) == WRITTEN
    assert brokers.opened == 2


def failed(error: Exception) -> Answer:
    answer = Answer()
    answer.failure(error)
    return answer


def test_it_is_not_replaced_before_the_brokers_answer(monkeypatch):
    stuck = Client(writes=False)
    brokers = Brokers(monkeypatch, stuck, Client(writes=True))
    with pytest.raises(LogUnavailable):
        brokers.producer.send(RECORDS, 0.01)
    stuck.given[0].failure(KafkaTimeoutError("Expiring 1 record(s)"))
    brokers.up = False
    for _ in range(3):
        with pytest.raises(LogUnavailable, match="ask for the topics"):
            brokers.producer.send(RECORDS, 5)
    assert (brokers.opened, stuck.closed) == (1, False)
    brokers.up = True
    assert brokers.producer.send(RECORDS, 5) == WRITTEN


def test_a_client_that_writes_is_kept_and_asks_for_its_topics_once(monkeypatch):
    brokers = Brokers(monkeypatch, Client(writes=True))
    assert brokers.producer.send(RECORDS, 5) == WRITTEN
    assert brokers.producer.send(RECORDS, 5) == [Placed(0, 2), Placed(0, 3)]
    with pytest.raises(UnknownTopic):
        brokers.producer.send([Outgoing("no", None, b"")], 5)
    brokers.producer.send(RECORDS, 5)
    assert (brokers.opened, brokers.asked) == (1, 2)


def test_nobody_waits_longer_than_he_said_for_another_who_connects(monkeypatch):
    brokers = Brokers(monkeypatch, Client(writes=True))
    asked, answer = threading.Event(), threading.Event()

    def counts() -> dict[str, int]:
        asked.set()
        assert answer.wait(60)
        return {"t": 1}

    brokers.counts = counts
    first = threading.Thread(target=brokers.producer.send, args=(RECORDS, 60))
    first.start()
    assert asked.wait(60)
    started = time.monotonic()
    with pytest.raises(LogUnavailable, match="no connection in time"):
        brokers.producer.send(RECORDS, 0.05)
    assert time.monotonic() - started < 30
    answer.set()
    first.join(60)
    assert brokers.opened == 1


def test_to_close_it_ends_also_what_nobody_answers(monkeypatch):
    stuck = Client(writes=False)
    brokers = Brokers(monkeypatch, stuck)
    with pytest.raises(LogUnavailable):
        brokers.producer.send(RECORDS, 0.01)
    brokers.producer.close()
    assert (stuck.forced, stuck.closed) == (True, True)
