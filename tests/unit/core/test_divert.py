"""Divert on the embedded log: the right topic, the same record, the envelope; nothing is acked that the broker has not."""

from __future__ import annotations

import dataclasses

import pytest
from unit.core.making import NOW

from clicktide import topics
from clicktide.divert import Divert
from clicktide.errors import LogUnavailable
from clicktide.log.embedded import EmbeddedLog
from clicktide.log.faults import FaultyLog
from clicktide.log.limits import MAX_RECORD_BYTES, size_of
from clicktide.log.port import Outgoing, Record, TopicPartition
from clicktide.parse import topic_digest
from clicktide.retry import envelope
from clicktide.retry.envelope import Origin
from clicktide.retry.policy import FATAL, STORE_WIDE, TRANSIENT, Policy
from clicktide.slices import Failure, Place

PREFIX = "t."
PARTITIONS = 4


class Desk:
    """The topics, a divert bolt's core, and what has been written where."""

    def __init__(self, folder):
        self.now = NOW
        sound = EmbeddedLog(folder / "log.db", 64 << 20, lambda: self.now)
        self.log, self.admin, self._sound = FaultyLog(sound), sound.admin(), sound
        self.admin.create_topics({PREFIX + name: PARTITIONS for name in topics.ALL})
        self.producer = sound.producer()
        policy = Policy(attempts=8, unknown_attempts=4, deadline_s=3600.0, park_tier="1m")
        self.divert_ = Divert(
            self.log.consumer("g.divert"),
            self.log.producer(),
            policy,
            PREFIX,
            lambda: self.now,
            lambda _a, b: b,
        )

    def place(self, topic="events", partition=2):
        topic_id = self.admin.topics()[PREFIX + topic].id
        return Place(PREFIX + topic, topic_id, topic_digest(topic_id), partition)

    def write(self, *records, topic="events", partition=2):
        """(key, value) or (key, value, headers) each."""
        out = [Outgoing(PREFIX + topic, r[0], r[1], r[2] if len(r) > 2 else (), partition) for r in records]
        return [p.offset for p in self.producer.send(out, 1.0)]

    def divert(self, failures, **where):
        return self.divert_.divert(self.place(**where), failures)

    def stored(self, topic, partition=2):
        tp = TopicPartition(PREFIX + topic, partition)
        consumer = self._sound.consumer("reader")
        first, end = consumer.bounds([tp])[tp]
        return [r for _, r in sorted(consumer.fetch(tp, range(first, end), 1.0).items())]

    def everything(self):
        return {
            (t, p): len(found)
            for t in topics.ALL[1:]
            for p in range(PARTITIONS)
            if (found := self.stored(t, p))
        }


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def failure(offset, kind=TRANSIENT, stage="redis", code="store_unavailable", error="it is away"):
    return Failure(offset, stage, kind, code, error)


def test_a_bad_record_goes_to_dead_as_it_was(desk):
    own = (("trace", b"abc"),)
    desk.write((b"k0", b"good"), (b"k1", b"\xff\x00not text", own))
    desk.now += 5000
    counts = desk.divert([failure(1, FATAL, "parse", "not_utf8", "byte 0")])
    assert counts == {"dead": 1}
    assert desk.everything() == {("dead", 2): 1}
    (found,) = desk.stored("dead")
    assert (found.key, found.value, found.partition) == (b"k1", b"\xff\x00not text", 2)
    place = desk.place()
    read = envelope.read(found, "x")
    assert read.origin == Origin("t.events", place.topic_id, 2, 1, NOW)
    assert (read.stage, read.kind, read.code, read.error) == ("parse", FATAL, "not_utf8", "byte 0")
    assert (read.attempt, read.first_failed_at, read.not_before) == (0, NOW + 5000, 0)


def test_each_failure_goes_where_the_policy_says(desk):
    desk.write(*[(b"k%d" % i, b"v%d" % i) for i in range(4)])
    counts = desk.divert(
        [failure(0), failure(1, FATAL), failure(2, STORE_WIDE), failure(3, stage="mysql.17"), failure(3)]
    )
    assert counts == {"retry.1s": 4, "dead": 1}
    assert [(r.key, envelope.read(r, "").stage) for r in desk.stored("retry.1s")] == [
        (b"k0", "redis"),
        (b"k2", "redis"),
        (b"k3", "mysql.17"),
        (b"k3", "redis"),
    ]


def test_waiting_for_a_store_that_is_away_is_no_failing(desk):
    """It comes back after a hundred hours: the first hiccup then is the first, whatever the deadline."""
    desk.write((b"k", b"v"))
    topic, offset = "events", 0
    for _ in range(3):
        (topic,) = desk.divert([failure(offset, STORE_WIDE)], topic=topic)
        offset = desk.stored(topic)[-1].offset
        desk.now += 50 * 3_600_000
    desk.now -= 50 * 3_600_000
    (topic,) = desk.divert([failure(offset)], topic=topic)
    assert topic == "retry.1s"
    offset = desk.stored(topic)[-1].offset
    desk.now += 100 * 3_600_000
    assert desk.divert([failure(offset)], topic=topic) == {"dead": 1}, "but failing that long is"


def test_held_for_longer_than_the_deadline_is_no_failing(desk):
    """Held in its tier nobody writes it anew: the failures that count begin when its store is back."""
    desk.write((b"k", b"v"))
    desk.divert([failure(0, STORE_WIDE)._replace(away_s=3600.0)])
    assert desk.everything() == {("retry.1m", 2): 1}, "at once where it stays"
    desk.now += 100 * 3_600_000
    assert desk.divert([failure(0)], topic="retry.1m") == {"retry.1s": 1}
    assert envelope.read(desk.stored("retry.1s")[0], "").first_failed_at == desk.now


def test_up_the_tiers_with_the_first_origin_and_the_first_failure(desk):
    """One record through all its attempts: only the envelope's figures change."""
    desk.write((b"k", b"v"))
    topic, offset, seen = "events", 0, []
    while topic != "dead":
        desk.now += 1000
        (topic,) = desk.divert([failure(offset, stage="mysql.3")], topic=topic)
        record = desk.stored(topic)[-1]
        offset = record.offset
        read = envelope.read(record, "")
        assert (record.key, record.value, record.partition) == (b"k", b"v", 2)
        assert (read.origin.topic, read.origin.partition, read.origin.offset) == ("t.events", 2, 0)
        assert read.origin.timestamp == NOW
        assert read.first_failed_at == NOW + 1000
        assert len({n for n, _ in record.headers}) == len(record.headers)
        seen.append((topic, read.attempt, read.not_before - desk.now if topic != "dead" else 0))
    tiers = [("retry.1s", 1000), ("retry.10s", 10_000), ("retry.1m", 60_000)] + [("retry.10m", 600_000)] * 5
    assert seen == [(t, i + 1, wait) for i, (t, wait) in enumerate(tiers)] + [("dead", 9, 0)]
    assert read.code == "exhausted"
    assert read.error == "it is away"


def test_the_record_is_stamped_when_it_is_written(desk):
    desk.write((b"k", b"v"))
    desk.now += 7
    desk.divert([failure(0)])
    assert desk.stored("retry.1s")[0].timestamp == NOW + 7


@pytest.mark.parametrize("call", ["fetch", "send"])
def test_a_broker_that_is_away_raises(desk, call):
    desk.write((b"k", b"v"))
    desk.log.fail_next(call, LogUnavailable("away"))
    with pytest.raises(LogUnavailable):
        desk.divert([failure(0)])
    assert desk.everything() == {}
    desk.divert([failure(0)])
    assert desk.everything() == {("retry.1s", 2): 1}


def test_written_but_the_acknowledgement_lost_raises_and_writes_again(desk):
    desk.write((b"k", b"v"))
    desk.log.fail_next("send", LogUnavailable("away"), after_write=True)
    with pytest.raises(LogUnavailable):
        desk.divert([failure(0)])
    desk.divert([failure(0)])
    first, second = desk.stored("retry.1s")
    assert envelope.read(first, "") == envelope.read(second, "")


def test_a_record_past_retention_is_kept_without_its_bytes(desk):
    desk.write((b"k0", b"v0"), (b"k1", b"v1"))
    desk.admin.delete_records({TopicPartition("t.events", 2): 1})
    assert desk.divert([failure(0, FATAL), failure(1, FATAL)]) == {"dead": 2}
    lost, kept = desk.stored("dead")
    assert (lost.key, lost.value) == (None, b"")
    assert envelope.read(lost, "").origin.offset == 0
    assert (kept.key, kept.value) == (b"k1", b"v1")


@pytest.mark.parametrize("kind", [FATAL, TRANSIENT])
def test_a_record_too_large_for_its_envelope_goes_on_without_what_is_too_much(desk, kind):
    """Its bytes and our headers are more than the broker takes: were it refused, its slice would fail for ever."""
    value = bytes(range(256)) * 3900
    value += b"x" * (MAX_RECORD_BYTES - len(value) - 1)
    desk.write((b"k", value), (b"k2", b"v2"))
    failures = [failure(0, kind, "parse", "too_large", "e" * 600), failure(1)]
    counts = desk.divert(failures)
    assert sum(counts.values()) == 2
    topic = "dead" if kind == FATAL else "retry.1s"
    found = next(r for r in desk.stored(topic) if r.key == b"k")
    assert value.startswith(found.value)
    assert len(found.value) > len(value) - 4000
    assert envelope.read(found, "").code == "too_large"
    assert size_of(Outgoing(found.topic, found.key, found.value, found.headers)) <= MAX_RECORD_BYTES


def test_no_failures_no_writes(desk):
    assert desk.divert([]) == {}
    assert desk.everything() == {}


def test_garbage_headers_are_survived(desk):
    garbage = ((topics.ORIGIN, b"\xff:::"), (topics.ATTEMPT, b"9" * 5000), (topics.FIRST_FAILED_AT, b"-5"))
    desk.write((b"k", b"v", garbage), topic="retry.1s")
    assert desk.divert([failure(0)], topic="retry.1s") == {"retry.1s": 1}
    (_, found) = desk.stored("retry.1s")
    read = envelope.read(found, "")
    assert (read.attempt, read.origin.topic, read.origin.offset) == (1, "t.retry.1s", 0)


def test_a_replay_id_stays(desk):
    before = envelope.Envelope(Origin("t.events", "ab", 2, 7, NOW), replay_id="desk-1")
    desk.write((b"k", b"v", before.headers()), topic="retry.1s")
    desk.divert([failure(0)], topic="retry.1s")
    after = envelope.read(desk.stored("retry.1s")[1], "")
    assert after.replay_id == "desk-1"
    assert dataclasses.replace(after, **{f: getattr(before, f) for f in _CHANGED}) == before


_CHANGED = ("attempt", "first_failed_at", "not_before", "stage", "kind", "code", "error")


def test_a_record_is_a_record():
    assert Record("t", 0, 0, 0, None, b"").headers == ()
