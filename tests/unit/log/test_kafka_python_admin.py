"""What the kafka-python adapter makes of a cluster that has no group coordinator yet."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition as KafkaPartition
from kafka.errors import CoordinatorNotAvailableError, NotCoordinatorError

from clicktide.errors import LogUnavailable
from clicktide.log.kafka import Cluster
from clicktide.log.kafka_python import admin
from clicktide.log.port import TopicPartition

PLACE = TopicPartition("tide.events", 0)


class _Brokers:
    """Answers as told, one answer a question; the last one for ever."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.opened = 0

    def open(self, **_conf: Any) -> _Brokers:
        self.opened += 1
        return self

    def close(self) -> None:
        pass

    def list_group_offsets(self, _asked: Any) -> Any:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def _admin(monkeypatch: pytest.MonkeyPatch, brokers: _Brokers) -> admin.KafkaPythonAdmin:
    monkeypatch.setattr(admin, "KafkaAdminClient", brokers.open)
    monkeypatch.setattr(admin, "_LOOK_AGAIN_S", 0.0)
    return admin.KafkaPythonAdmin(Cluster("127.0.0.1:1", "PLAINTEXT", "", "", "", ""))


def test_a_coordinator_that_is_to_come_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"g": {KafkaPartition(*PLACE): SimpleNamespace(offset=7)}}
    brokers = _Brokers(CoordinatorNotAvailableError("new"), NotCoordinatorError("moved"), found)
    assert _admin(monkeypatch, brokers).committed("g", [PLACE]) == {PLACE: 7}
    # A coordinator that the client remembers may be none any more: each try looks for it anew.
    assert brokers.opened == brokers.asked == 3


def test_a_coordinator_that_never_comes_is_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "REQUEST_TIMEOUT_S", 0.0)
    with pytest.raises(LogUnavailable, match="offsets of group g"):
        _admin(monkeypatch, _Brokers(CoordinatorNotAvailableError("none"))).committed("g", [PLACE])
