"""The watch: what a spout is told of the stores, from what Redis and the bolts say."""

from __future__ import annotations

import json

import pytest
import redis
from unit.core.making import Clock

import clicktide.watch
from clicktide.errors import StoreUnavailable
from clicktide.redisstore.cluster import Cluster
from clicktide.settings import Settings
from clicktide.watch import StoreWatch

NOW = 1_760_000_000_000
SAID = {b"t.retry:4": json.dumps({"at": NOW, "away": {"mysql.1": ["mysql.1"]}}).encode()}


class Client:
    """A Redis that answers, until it is `gone`."""

    def __init__(self):
        self.gone, self.said, self.run_id = False, dict(SAID), "r1"

    def _answer(self, found):
        if self.gone:
            raise redis.ConnectionError("gone")
        return found

    def info(self, _section):
        return self._answer({"run_id": self.run_id})

    def get(self, _key):
        return self._answer(None)

    def hgetall(self, _key):
        return self._answer(self.said)


@pytest.fixture
def client(monkeypatch):
    made = Client()
    monkeypatch.setattr(clicktide.watch, "connect", lambda _settings, timeout_s: made)
    return made


def watch(wall_ms=lambda: NOW):
    def ping():
        raise StoreUnavailable("mysql.0", "away")

    return StoreWatch(Settings({}), Clock(), lambda: [lambda: None, ping], wall_ms=wall_ms)


def test_what_the_bolts_say_is_known_until_they_say_otherwise(client):
    found = watch()
    found._look()
    assert found.seen().away == {"mysql.1": "mysql.1"}
    client.said = {b"t.retry:4": json.dumps({"at": NOW, "away": {}}).encode()}
    found._look()
    assert (found.seen().away, found.seen().run_id) == ({}, "r1")


def test_with_redis_away_that_alone_is_known(client):
    now = [NOW]
    found = watch(lambda: now[0])
    client.gone = True
    found._look()
    seen = found.seen()
    assert (seen.run_id, seen.away, seen.all_away) == (None, {"redis": "redis"}, False)
    client.gone = False
    found._look()
    client.gone = True
    found._look()
    assert found.seen().away == {"mysql.1": "mysql.1", "redis": "redis"}, "was said just now"
    now[0] += 60_001
    found._look()
    assert found.seen().away == {"redis": "redis"}, "a minute later nobody knows"
    now[0] = NOW
    client.gone = False
    found._look()
    assert found.seen().away == {"mysql.1": "mysql.1"}


def test_a_redis_that_was_away_between_two_looks_is_back_with_the_next(client):
    found = watch()
    seen = []
    for run_id in ("r1", "r1", "r2", "r2"):
        client.run_id = run_id
        found._look()
        seen.append((found.seen().run_id, found.seen().away.get("redis")))
    assert seen == [("r1", None), ("r1", None), ("r2", "redis"), ("r2", None)]


def test_a_cluster_of_which_one_node_is_away_is_not_away(monkeypatch):
    class Nodes(Cluster):
        def __init__(self):
            pass

        def run_id(self):
            raise StoreUnavailable("redis", "a slot has no master that answers")

    monkeypatch.setattr(clicktide.watch, "connect", lambda _settings, timeout_s: Nodes())
    found = watch()
    found._look()
    assert (found.seen().run_id, found.seen().away) == (None, {})


def test_who_does_not_listen_is_told_nothing(client):
    found = watch(None)
    found._look()
    assert found.seen().away == {}
    client.gone = True
    found._look()
    assert found.seen().away == {}
