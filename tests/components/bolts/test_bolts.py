"""The bolts over Storm's protocol: what they emit, and the one ack rule."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import ClassVar

import pytest
from components.bolts.storm import HEARTBEAT, TICK, held, of, run, tuple_, verdicts
from unit.core.making import DIGEST, NOW, TOPIC_ID, raw, row

import bolts.aggregate
import bolts.divert
import bolts.persist
import bolts.retry
from bolts.aggregate import AggregateBolt
from bolts.divert import DivertBolt
from bolts.parse import ParseBolt
from bolts.persist import PersistBolt
from bolts.retry import RetryBolt
from clicktide import topics
from clicktide.errors import LogUnavailable, StoreUnavailable
from clicktide.log.embedded import EmbeddedLog
from clicktide.log.faults import FaultyLog
from clicktide.log.port import Outgoing, TopicPartition
from clicktide.packing import unpack
from clicktide.redisstore.store import Applied
from clicktide.retry import envelope
from clicktide.retry.envelope import Origin
from clicktide.row import EVENT_ID
from clicktide.slices import Failure, Failures, Place, Records, Retries, Rows
from clicktide.sql.write import Written

PLACE = Place("tide.events", TOPIC_ID, DIGEST, 3)
NONE = Applied(frozenset(), frozenset(), frozenset(), {})
NOBODY = {"tide.redis.url": "unix:///nobody/there.sock"}


def records(*values):
    return Records(PLACE, list(range(len(values))), [NOW] * len(values), list(values))


# -- the ack rule


class Raises(ParseBolt):
    """Fails on tuples that say so."""

    error: ClassVar[Exception] = ValueError("user 4711 did it")

    def process(self, tup):
        if unpack(tup.values[0], Records).offsets == [666]:
            raise self.error
        super().process(tup)


POISON = Records(PLACE, [666], [NOW], [b"secret payload"])


def test_process_returns_and_the_tuple_is_acked_after_its_emits(tmp_path):
    said = of(run(ParseBolt, [tuple_(records(raw()))], tmp_path), "emit", "ack", "fail")
    assert [m["command"] for m in said] == ["emit", "ack"]
    assert (said[0]["anchors"], said[1]["id"]) == (["t1"], "t1")
    assert said[0]["need_task_ids"] is False


def test_process_raises_and_the_tuple_fails_once_and_the_bolt_goes_on(tmp_path):
    commands = [tuple_(POISON, "bad"), tuple_(records(raw()), "good"), tuple_(POISON, "bad2")]
    said = run(Raises, commands, tmp_path)
    assert verdicts(said) == [("fail", "bad"), ("ack", "good"), ("fail", "bad2")]
    errors = of(said, "error")
    assert len(errors) == 2
    assert "ValueError: user 4711 did it" in errors[0]["msg"]
    assert "secret payload" not in json.dumps(said), "what users did stays out of Storm's error page"


def test_an_error_that_is_no_text_for_storm_still_fails_the_tuple(tmp_path):
    class Odd(Raises):
        error = ValueError("file \udcff is odd")

    assert verdicts(run(Odd, [tuple_(POISON)], tmp_path)) == [("fail", "t1")]


def test_an_emit_that_cannot_be_written_fails_its_tuple(tmp_path):
    """pystorm would log it and ack: a silent loss."""

    class Odd(ParseBolt):
        def process(self, tup):
            self.emit([object()])

    said = run(Odd, [tuple_(records(raw()))], tmp_path)
    assert verdicts(said) == [("fail", "t1")]
    assert of(said, "emit") == []


def test_what_is_printed_goes_to_the_log(tmp_path):
    class Chatty(ParseBolt):
        def process(self, tup):
            print("hello from", "a library")
            super().process(tup)

    said = run(Chatty, [tuple_(records(raw()))], tmp_path)
    assert verdicts(said) == [("ack", "t1")]
    assert any("hello from" in m["msg"] for m in of(said, "log"))


def test_heartbeats_and_ticks(tmp_path):
    said = run(ParseBolt, [HEARTBEAT, TICK, tuple_(records(raw()))], tmp_path, NOBODY)
    assert {"command": "sync"} in said
    assert verdicts(said) == [("ack", "tick"), ("ack", "t1")], "health that cannot be published fails nothing"


def test_health_is_published_with_counts_and_breakers(tmp_path, monkeypatch):
    published = []
    monkeypatch.setattr("multilang.component.publish_health", lambda *a: published.append(a[1:]))
    run(ParseBolt, [tuple_(records(raw(), b"bad")), TICK, TICK], tmp_path, NOBODY, name="parse")
    ((namespace, task, health),) = published
    assert (namespace, task) == ("main", "t.parse:1")
    assert health["counts"] == {"rows": 1, "refused": 1}
    assert health["breakers"] == {}


def test_an_unknown_setting_stops_the_bolt_by_name(tmp_path):
    with pytest.raises(Exception, match=r"unknown setting 'slice\.size'"):
        run(ParseBolt, [], tmp_path, {"tide.slice.size": 1})


# -- parse


def test_parse(tmp_path):
    said = run(ParseBolt, [tuple_(records(raw("a"), b"{}", b"\xff", raw("b")))], tmp_path)
    failures, rows = of(said, "emit")
    assert failures["stream"] == "failed"
    place, refused = held(failures, Failures)
    assert place == PLACE
    assert [f[:4] for f in refused] == [
        (1, "parse", "fatal", "missing_field"),
        (2, "parse", "fatal", "not_utf8"),
    ]
    assert "stream" not in rows
    assert held(rows, Rows) == (PLACE, [row("a", partition=3), row("b", offset=3, partition=3)])


@pytest.mark.parametrize(("values", "streams"), [([raw()], [None]), ([b"x"], ["failed"])])
def test_nothing_empty_is_emitted(tmp_path, values, streams):
    said = run(ParseBolt, [tuple_(records(*values))], tmp_path)
    assert [m.get("stream") for m in of(said, "emit")] == streams


# -- aggregate


def aggregate(monkeypatch, tmp_path, apply, tuples):
    monkeypatch.setattr(
        bolts.aggregate, "RedisStore", lambda _settings, tombstones: SimpleNamespace(apply=apply)
    )
    return run(AggregateBolt, [tuple_(Rows(PLACE, rows), f"t{i}") for i, rows in enumerate(tuples)], tmp_path)


def test_aggregate_drops_duplicates_and_diverts_conflicts(tmp_path, monkeypatch):
    rows = [row(f"e{i}", offset=i) for i in range(4)]
    answer = NONE._replace(duplicates=frozenset({1}), conflicts=frozenset({2}))
    said = aggregate(monkeypatch, tmp_path, lambda _rows: answer, [rows])
    failed, on = of(said, "emit")
    assert [(f.offset, f.code) for f in held(failed, Failures).failures] == [(2, "id_conflict")]
    assert held(on, Rows) == (PLACE, [rows[0], rows[3]])
    assert verdicts(said) == [("ack", "t0")]


def test_aggregate_with_redis_away_lets_the_rows_go_on(tmp_path, monkeypatch):
    def away(_rows):
        raise StoreUnavailable("redis", "away")

    rows = [row("e")]
    said = aggregate(monkeypatch, tmp_path, away, [rows] * 7)
    failed = [held(m, Failures) for m in of(said, "emit") if m.get("stream") == "failed"]
    kinds = [f.failures[0].kind for f in failed]
    assert kinds == ["transient"] * 4 + ["store_wide"] * 3
    assert [held(m, Rows) for m in of(said, "emit") if "stream" not in m] == [(PLACE, rows)] * 7
    assert {v for v, _ in verdicts(said)} == {"ack"}


def test_only_duplicates_emit_nothing(tmp_path, monkeypatch):
    said = aggregate(monkeypatch, tmp_path, lambda _: NONE._replace(duplicates=frozenset({0})), [[row("e")]])
    assert of(said, "emit") == []
    assert verdicts(said) == [("ack", "t0")]


# -- persist and retry


class Sql:
    """Writes to a list; away when told."""

    def __init__(self, away=False):
        self.away, self.rows, self.erased = away, [], 0

    def dsn_of(self, _shard):
        return 0

    def write(self, _dsn, rows):
        if self.away:
            raise StoreUnavailable("mysql.0", "away")
        self.rows += rows
        return Written(len(rows), [])


@pytest.mark.parametrize("away", [False, True])
def test_persist(tmp_path, monkeypatch, away):
    sql = Sql(away)
    monkeypatch.setattr(bolts.persist, "SqlStore", lambda _settings: sql)
    rows = [row("e", offset=5)]
    said = run(PersistBolt, [tuple_(Rows(PLACE, rows))], tmp_path)
    assert verdicts(said) == [("ack", "t1")]
    if away:
        (failed,) = of(said, "emit")
        assert (failed["stream"], failed["anchors"]) == ("failed", ["t1"])
        (failure,) = held(failed, Failures).failures
        assert failure[:4] == (5, f"mysql.{rows[0][5]}", "transient", "store_unavailable")
    else:
        assert (sql.rows, of(said, "emit")) == (rows, [])


def test_retry(tmp_path, monkeypatch):
    sql, seen = Sql(away=True), []

    def apply(rows):
        seen.extend(rows)
        return NONE

    monkeypatch.setattr(bolts.retry, "SqlStore", lambda _settings: sql)
    monkeypatch.setattr(bolts.retry, "RedisStore", lambda _settings, tombstones: SimpleNamespace(apply=apply))
    origins = [Origin("tide.events", TOPIC_ID, 3, offset, NOW) for offset in (17, 18)]
    place = Place("tide.retry.1s", "ff" * 16, "xxxxxx", 3)
    retries = Retries(place, [50, 51], [raw("a"), raw("b")], ["redis", "mysql.4"], origins)
    said = run(RetryBolt, [tuple_(retries)], tmp_path)
    assert seen == [row("a", offset=17, partition=3)]
    (failed,) = of(said, "emit")
    found = held(failed, Failures)
    assert found.place == place
    assert [f.offset for f in found.failures] == [51]
    assert verdicts(said) == [("ack", "t1")]


@pytest.mark.parametrize("away", [False, True])
def test_retry_says_whom_it_would_not_ask(tmp_path, monkeypatch, away):
    """Other bolts say nothing of that: what is tried again waits for what this one knows."""
    published = []
    monkeypatch.setattr("multilang.component.publish_health", lambda *a: published.append(a[-1]))
    monkeypatch.setattr(bolts.retry, "SqlStore", lambda _settings: Sql(away=away))
    monkeypatch.setattr(bolts.retry, "RedisStore", lambda _settings, tombstones: SimpleNamespace())
    origins = [Origin("tide.events", TOPIC_ID, 3, 17, NOW)]
    retries = Retries(Place("tide.retry.1s", "ff" * 16, "x", 3), [50], [raw("a")], ["mysql.1"], origins)
    conf = NOBODY | {"tide.breaker.failures": 2, "tide.shards.count": 4}
    run(RetryBolt, [tuple_(retries), tuple_(retries), TICK], tmp_path, conf)
    run(ParseBolt, [TICK], tmp_path, NOBODY)
    retry, parse = published
    assert retry["away"] == ({"mysql.0": [f"mysql.{shard}" for shard in range(4)]} if away else {})
    assert "away" not in parse


# -- divert


@pytest.fixture
def log(tmp_path, monkeypatch):
    sound = EmbeddedLog(tmp_path / "log.db", 64 << 20)
    sound.admin().create_topics({f"tide.{name}": 4 for name in topics.ALL})
    sound.producer().send([Outgoing("tide.events", b"k", b"v%d" % i, (), 3) for i in range(3)], 5.0)
    faulty = FaultyLog(sound)
    faulty.sound = sound
    monkeypatch.setattr(bolts.divert, "open_log", lambda _settings: faulty)
    return faulty


def stored(log, topic):
    tp = TopicPartition(f"tide.{topic}", 3)
    return list(log.sound.consumer("reader").fetch(tp, range(9), 1.0).values())


def failures(log):
    topic_id = log.sound.admin().topics()["tide.events"].id
    place = Place("tide.events", topic_id, "dddddd", 3)
    return Failures(place, [Failure(1, "parse", "fatal", "not_json", "no")])


def test_divert_acks_what_the_broker_has(tmp_path, log):
    said = run(DivertBolt, [tuple_(failures(log), stream="failed")], tmp_path)
    assert verdicts(said) == [("ack", "t1")]
    (found,) = stored(log, "dead")
    assert (found.key, found.value, envelope.read(found, "").code) == (b"k", b"v1", "not_json")


@pytest.mark.parametrize(("call", "after"), [("fetch", False), ("send", False), ("send", True)])
def test_divert_fails_what_the_broker_may_not_have(tmp_path, log, call, after):
    log.fail_next(call, LogUnavailable("away"), after_write=after)
    tuples = [tuple_(failures(log), "first"), tuple_(failures(log), "again")]
    said = run(DivertBolt, tuples, tmp_path)
    assert verdicts(said) == [("fail", "first"), ("ack", "again")]
    assert len(stored(log, "dead")) == (2 if after else 1)


def test_event_ids_are_where_rows_have_them():
    assert row("e")[EVENT_ID] == "e"
