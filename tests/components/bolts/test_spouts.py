"""The spouts over Storm's protocol, on the embedded log: what they emit, and what acks and fails do."""

from __future__ import annotations

from typing import ClassVar

import pytest
from components.bolts.storm import NEXT, held, of, run
from unit.core.making import NOW

import spouts.slices
from clicktide import topics
from clicktide.errors import LogUnavailable
from clicktide.log.embedded import EmbeddedLog
from clicktide.log.faults import FaultyLog
from clicktide.log.port import Outgoing
from clicktide.parse import topic_digest
from clicktide.retry.envelope import Envelope, Origin
from clicktide.seen import Seen
from clicktide.slices import Failures, Place, Records, Retries
from spouts.slices import KafkaSpout, RetrySpout

ORIGIN = Origin("tide.events", "ab" * 16, 1, 17, NOW)


class Watch:
    """Redis is there; remembers what positions it was given."""

    positions = None

    away: ClassVar[dict[str, str]] = {}

    def __init__(self, _settings, clock, _pings, wall_ms=None):
        self._clock, self._listens = clock, wall_ms is not None

    def start(self):
        return self

    def seen(self):
        return Seen("redis-1", self._clock(), away=self.away if self._listens else {})


class Sql:
    dsns = ()


@pytest.fixture
def log(tmp_path, monkeypatch):
    sound = EmbeddedLog(tmp_path / "log.db", 64 << 20)
    sound.admin().create_topics({f"tide.{name}": 2 for name in topics.ALL})
    faulty = FaultyLog(sound)
    faulty.sound = sound
    monkeypatch.setattr(spouts.slices, "open_log", lambda _settings: faulty)
    monkeypatch.setattr(spouts.slices, "StoreWatch", Watch)
    monkeypatch.setattr(spouts.slices, "SqlStore", lambda _settings: Sql())
    for spout in (KafkaSpout, RetrySpout):
        monkeypatch.setattr(spout, "idle_s", 0.0)
    return faulty


def write(log, *values, topic="events", headers=(), partition=1):
    log.sound.producer().send(
        [Outgoing(f"tide.{topic}", b"k", v, tuple(headers), partition, NOW) for v in values], 5.0
    )


CONF = {"tide.slice.wait_ms": 0, "tide.slice.records": 2}


def spin(spout, commands, tmp_path, **conf):
    return run(spout, commands, tmp_path, {**CONF, **conf}, name="spout")


def last_emit(command):
    """An ack or fail of what was emitted last."""
    return lambda said: {"command": command, "id": of(said, "emit")[-1]["id"]}


def test_a_slice_on_the_wire(tmp_path, log):
    write(log, "漢".encode(), b"\xff", b"third")
    said = spin(KafkaSpout, [NEXT, NEXT, NEXT], tmp_path)
    first, second = of(said, "emit")
    topic_id = log.sound.admin().topics()["tide.events"].id
    place = Place("tide.events", topic_id, topic_digest(topic_id), 1)
    assert held(first, Records) == (place, [0, 1], [NOW, NOW], ["漢".encode(), b"\xff"])
    assert held(second, Records).offsets == [2]
    assert first["id"] != second["id"]
    assert "stream" not in first
    assert len(of(said, "sync")) == 3, "one for each command"


def test_a_slice_is_bounded_by_its_bytes(tmp_path, log):
    write(log, b"1234", b"5", b"6")
    said = spin(KafkaSpout, [NEXT, NEXT], tmp_path, **{"tide.slice.records": 9, "tide.slice.bytes": 5})
    assert [held(m, Records).offsets for m in of(said, "emit")] == [[0, 1], [2]]


def test_acks_and_fails_reach_the_source(tmp_path, log):
    write(log, b"a", b"b", b"c")
    commands = [NEXT, last_emit("ack"), NEXT, last_emit("fail"), NEXT]
    said = spin(KafkaSpout, commands, tmp_path)
    assert [held(m, Records).offsets for m in of(said, "emit")] == [[0, 1], [2]], (
        "the failed one waits before it comes again"
    )
    assert len(of(said, "sync")) == 5


def test_ids_of_another_life_are_ignored(tmp_path, log):
    write(log, b"a")
    said = spin(
        KafkaSpout, [{"command": "ack", "id": "old"}, {"command": "fail", "id": "old"}, NEXT], tmp_path
    )
    assert len(of(said, "emit")) == 1
    assert of(said, "error") == []


def test_a_broker_that_is_away_is_no_error(tmp_path, log):
    write(log, b"a")
    log.fail_next("poll", LogUnavailable("away"))
    said = spin(KafkaSpout, [NEXT, NEXT], tmp_path)
    assert of(said, "error") == []
    assert len(of(said, "emit")) == 1
    assert len(of(said, "sync")) == 2


def test_a_slice_that_could_not_be_emitted_comes_again(tmp_path, log, monkeypatch):
    """Nobody but the spout knows of it: without its own fail it would hold up the partition for ever."""
    write(log, b"a")
    failed = []

    class Broken(KafkaSpout):
        def send(self, found):
            failed.append(found.id)
            raise ValueError("not this time")

        def fail(self, tup_id):
            raise AssertionError("Storm does not know this slice")

    monkeypatch.setattr(spouts.slices.Source, "fail", lambda _self, id_: failed.append(id_))
    said = spin(Broken, [NEXT], tmp_path)
    assert len(failed) == 2
    assert failed[0] == failed[1]
    assert len(of(said, "error")) == 1
    assert len(of(said, "sync")) == 1, "one for the command, whatever happened"


def test_poison_goes_to_the_divert_bolt(tmp_path, log, monkeypatch):
    write(log, b"a")
    real = spouts.slices.Source.next

    def poisoned(self, timeout_s):
        found = real(self, timeout_s)
        return found and found._replace(poison="poison")

    monkeypatch.setattr(spouts.slices.Source, "next", poisoned)
    (emit,) = of(spin(KafkaSpout, [NEXT], tmp_path), "emit")
    assert emit["stream"] == "failed"
    found = held(emit, Failures)
    assert found.place.topic == "tide.events"
    ((offset, stage, kind, code, *_),) = found.failures
    assert (offset, stage, kind, code) == (0, "poison", "fatal", "poison")


def test_retries_carry_their_stage_and_origin(tmp_path, log):
    due = Envelope(ORIGIN, attempt=1, stage="mysql.17", not_before=NOW)
    write(log, b"a", topic="retry.10s", headers=due.headers())
    write(log, b"b", topic="retry.10s")
    (emit,) = of(spin(RetrySpout, [NEXT, NEXT], tmp_path), "emit")
    place, offsets, values, stages, origins = held(emit, Retries)
    assert (place.topic, place.partition, offsets, values) == ("tide.retry.10s", 1, [0, 1], [b"a", b"b"])
    assert stages == ["mysql.17", ""]
    assert origins == [ORIGIN, Origin("tide.retry.10s", place.topic_id, 1, 1, NOW)]


def test_retries_wait_until_they_are_due(tmp_path, log):
    later = Envelope(ORIGIN, stage="redis", not_before=9 * NOW)
    write(log, b"a", topic="retry.1s", headers=later.headers())
    write(log, b"b", topic="retry.1s", headers=Envelope(ORIGIN, stage="redis").headers(), partition=0)
    said = spin(RetrySpout, [NEXT] * 4, tmp_path)
    assert [held(m, Retries).values for m in of(said, "emit")] == [[b"b"]]


def test_what_was_parked_for_a_store_that_is_away_is_held_in_its_tier(tmp_path, log, monkeypatch):
    parked = Envelope(ORIGIN, stage="mysql.3", kind="store_wide", not_before=NOW).headers()
    waiting = [b"%d" % i for i in range(30)]
    write(log, *waiting, topic="retry.1m", headers=parked)
    write(log, b"short", topic="retry.10s", headers=parked)
    failed = Envelope(ORIGIN, stage="mysql.3", kind="transient", not_before=NOW).headers()
    write(log, b"other", topic="retry.1m", headers=failed, partition=0)
    away = {"mysql.3": "mysql.1"}
    monkeypatch.setattr(Watch, "away", away)
    monkeypatch.setattr(spouts.slices, "_now_ms", lambda: NOW)

    def back(_said):
        away.clear()
        return NEXT

    said = spin(RetrySpout, [NEXT] * 12, tmp_path, **{"tide.slice.records": 100})
    found = [held(m, Retries).values for m in of(said, "emit")]
    assert sorted(found) == sorted([[b"short"], [b"other"], waiting[:10]])
    said = spin(RetrySpout, [NEXT] * 4 + [back] + [NEXT] * 6, tmp_path, **{"tide.slice.records": 100})
    found = [v for m in of(said, "emit") for v in held(m, Retries).values if v in waiting]
    assert found == waiting, "all of it, in its order, as soon as the store is back"


def test_the_park_tier_is_the_one_that_holds(tmp_path, log, monkeypatch):
    parked = Envelope(ORIGIN, stage="redis", kind="store_wide", not_before=NOW).headers()
    for topic in ("retry.1m", "retry.1s"):
        write(log, *[topic.encode()] * 20, topic=topic, headers=parked)
    monkeypatch.setattr(Watch, "away", {"redis": "redis"})
    monkeypatch.setattr(spouts.slices, "_now_ms", lambda: NOW)
    conf = {"tide.retry.park_tier": "1s", "tide.slice.records": 100}
    said = spin(RetrySpout, [NEXT] * 6, tmp_path, **conf)
    found = sorted(held(m, Retries).values for m in of(said, "emit"))
    assert found == [[b"retry.1m"] * 20, [b"retry.1s"] * 10]


def test_tasks_of_one_spout_share_the_partitions(tmp_path, log):
    write(log, b"zero", partition=0)
    write(log, b"one", partition=1)
    seen = {}
    for task in (1, 4):

        class Here(KafkaSpout):
            def task_index(self, context, task=task):
                return super().task_index({**context, "taskid": task})

        tasks = {1: "spout", 2: "other", 4: "spout"}
        said = run(Here, [NEXT] * 3, tmp_path, CONF, name="spout", tasks=tasks)
        seen[task] = [held(m, Records).values for m in of(said, "emit")]
    assert seen == {1: [[b"zero"]], 4: [[b"one"]]}


def test_positions_are_handed_to_the_watch(tmp_path, log, monkeypatch):
    watches = []

    class Kept(Watch):
        def __init__(self, *a, **k):
            super().__init__(*a, **k)
            watches.append(self)

    monkeypatch.setattr(spouts.slices, "StoreWatch", Kept)
    write(log, b"a")
    spin(KafkaSpout, [NEXT, last_emit("ack"), NEXT], tmp_path)
    assert watches[0].positions()["tide.events:1"]["done"] == 1
