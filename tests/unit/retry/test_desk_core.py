"""The desk's core on an embedded log: reading, choosing, replaying and removing hundreds of dead letters."""

from __future__ import annotations

import json

import pytest
from unit.core.making import NOW, PARSER, raw

from clicktide import topics
from clicktide.divert import Divert
from clicktide.errors import LogUnavailable
from clicktide.log.embedded import EmbeddedLog
from clicktide.log.faults import FaultyLog
from clicktide.log.port import Outgoing, TopicPartition
from clicktide.retry import envelope, removal
from clicktide.retry.dead_limits import DeadLetterLimit
from clicktide.retry.letters import Filter, Letters
from clicktide.retry.policy import FATAL, DeadLimits, Policy
from clicktide.retry.replay import Replay, objection, outgoing, select
from clicktide.slices import Failure, Place

PREFIX, PARTITIONS, EACH = "t.", 2, 150
LIMITS = DeadLimits()


class Bench:
    def __init__(self, folder):
        self.now = NOW
        self.sound = EmbeddedLog(folder / "log.db", 64 << 20, lambda: self.now)
        self.log, self.admin, self.producer = FaultyLog(self.sound), self.sound.admin(), self.sound.producer()
        self.admin.create_topics({PREFIX + name: PARTITIONS for name in topics.ALL})
        self.letters = Letters(self.log.consumer("desk"), PREFIX)
        self.audited = []

    def divert(self, limits=LIMITS, alarms=None):
        policy = Policy(attempts=8, unknown_attempts=4, deadline_s=3600.0, park_tier="1m", dead=limits)
        consumer, producer = self.sound.consumer("g"), self.sound.producer()
        return Divert(consumer, producer, policy, PREFIX, lambda: self.now, lambda _a, b: b, alarms=alarms)

    def place(self, partition, topic="events"):
        return Place(PREFIX + topic, self.admin.topics()[PREFIX + topic].id, "digest", partition)

    def write(self, partition, values, user=b"u1"):
        records = [Outgoing(PREFIX + "events", user, v, (), partition, self.now) for v in values]
        return [p.offset for p in self.producer.send(records, 5.0)]

    def fill(self):
        """Dead letters of two stages in turn, a second apart in time."""
        divert = self.divert()
        for partition in range(PARTITIONS):
            for n in range(EACH):
                (offset,) = self.write(partition, [b"bad-%d" % n], b"u%d" % (n % 3))
                stage, code = ("parse", "not_json") if n % 2 else ("mysql.7", "store_refused")
                divert.divert(self.place(partition), [Failure(offset, stage, FATAL, code, "why")])
                self.now += 1000

    def read(self, **wanted):
        return list(self.letters.read(Filter(**wanted)))

    def stored(self, name):
        out = []
        for p in range(PARTITIONS):
            tp = TopicPartition(PREFIX + name, p)
            first, end = self.admin.bounds([tp])[tp]
            out += [r for _, r in sorted(self.sound.consumer("x").fetch(tp, range(first, end), 5.0).items())]
        return out

    def replay(self, chosen, run="run", edits=None):
        work = Replay(
            self.letters,
            self.log.producer(),
            PREFIX,
            run,
            lambda: self.now,
            self.audited.extend,
            lambda _n: None,
            20,
        )
        try:
            work.send(chosen, edits or {})
        finally:
            removal.remove(self.letters, self.producer, self.admin, chosen.by_partition(work.done))
        return work.done


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_filters(bench):
    bench.fill()
    everything = bench.read()
    assert len(everything) == PARTITIONS * EACH
    assert len(bench.read(stage="mysql")) == len(bench.read(stage="mysql.7")) == EACH
    assert bench.read(stage="mysql.1") == []
    assert len(bench.read(code="not_json")) == EACH
    assert len(bench.read(user="u0")) == EACH // 3 * PARTITIONS
    assert len(bench.read(topic="events")) == PARTITIONS * EACH
    assert bench.read(topic="backfill") == []
    since, until = NOW + 10_000, NOW + 20_000
    assert [x.record.timestamp for x in bench.read(since=since, until=until)] == list(
        range(since, until, 1000)
    )
    assert [x.id for x in bench.read(ids=frozenset(["events:1:7"]))] == ["events:1:7"]


def test_replaying_some_leaves_the_others_as_they_were(bench):
    bench.fill()
    others = [
        (x.id, x.record.value, x.record.key, x.record.headers, x.record.timestamp)
        for x in bench.read(stage="parse")
    ]
    done = bench.replay(select(bench.read(stage="mysql")))
    assert len(done) == EACH
    back = bench.stored("retry.1s")
    assert len(back) == len(bench.audited) == EACH
    for record in back:
        e = envelope.read(record, "")
        assert record.partition == e.origin.partition
        assert (e.stage, e.attempt, e.replay_id, e.origin.topic) == ("mysql.7", 0, "run.1", "t.events")
    left = [(x.id, x.record.value, x.record.key, x.record.headers, x.record.timestamp) for x in bench.read()]
    assert sorted(left) == sorted(others)


def test_a_broker_that_goes_away_in_the_middle_loses_nothing(bench):
    bench.fill()
    bench.log.calls.clear()
    bench.log.fail_next("send", LogUnavailable("away"))
    with pytest.raises(LogUnavailable):
        bench.replay(select(bench.read()))
    assert len(bench.read()) == PARTITIONS * EACH
    bench.replay(select(bench.read()))
    assert bench.read() == []
    assert len(bench.stored("retry.1s")) == PARTITIONS * EACH


def test_a_removal_cut_off_before_the_cut_shows_each_once(bench):
    bench.fill()
    chosen = select(bench.read(stage="mysql"))
    drop = chosen.by_partition(chosen.newest)
    admin = bench.log.admin()
    bench.log.fail_next("delete_records", LogUnavailable("away"))
    with pytest.raises(LogUnavailable):
        removal.remove(bench.letters, bench.producer, admin, drop)
    assert len(select(bench.read())) == PARTITIONS * EACH
    again = select(bench.read(stage="mysql"))
    removal.remove(bench.letters, bench.producer, admin, again.by_partition(again.newest))
    assert {x.envelope.stage for x in bench.read()} == {"parse"}
    assert len(select(bench.read())) == EACH


def test_replayed_too_often_is_left_alone_and_older_letters_are_no_way_round(bench):
    (offset,) = bench.write(0, [b"bad"])
    bench.divert().divert(bench.place(0), [Failure(offset, "parse", FATAL, "not_json", "why")])
    first = bench.read()[0]
    for n in range(1, 4):
        back = outgoing(bench.read()[-1], PREFIX, "run", bench.now)
        where = bench.producer.send([back], 5.0)[0]
        bench.divert().divert(
            bench.place(0, "retry.1s"), [Failure(where.offset, "parse", FATAL, "not_json", "why")]
        )
        assert bench.read()[-1].envelope.replay_id == f"run.{n}"
        assert bench.read()[-1].key == first.key
    chosen = select(bench.read(), 3)
    assert (len(chosen), chosen.refused) == (0, {first.id: 3})
    assert len(select(bench.read(), 4)) == len(select(bench.read())) == 1


def test_edits(bench):
    offsets = bench.write(0, [b"{", raw("e1", item_id="a", channel="x")])
    bench.divert().divert(
        bench.place(0),
        [
            Failure(offsets[0], "parse", FATAL, "not_json", ""),
            Failure(offsets[1], "mysql.7", FATAL, "store_refused", ""),
        ],
    )
    bad, refused = bench.read()
    assert objection(bad, raw("e2"), PARSER) is None
    assert "not_json" in (objection(bad, b"[", PARSER) or "")
    assert objection(refused, raw("e1", item_id="a", channel="y"), PARSER) is None
    assert "another store" in (objection(refused, raw("e1", item_id="b"), PARSER) or "")
    assert "another store" in (objection(refused, raw("e9", item_id="a"), PARSER) or "")
    bench.replay(select([bad]), edits={bad.id: raw("e2")})
    (record,) = bench.stored("retry.1s")
    assert json.loads(record.value)["event_id"] == "e2"
    assert envelope.read(record, "").stage == "parse"


class Operator:
    def __init__(self):
        self.allows, self.told = False, []

    def allowed(self, stage):
        return self.allows

    def raised(self, stopped):
        self.told.append(sorted(stopped))


def test_divert_stops_at_the_limit_writes_nothing_of_the_slice_and_goes_on_when_allowed(bench):
    operator = Operator()
    divert = bench.divert(DeadLimits(burst=10, ratio=0.5, window_s=60.0, probe_s=30.0), operator)
    offsets = bench.write(0, [b"bad"] * 30)

    def failures(these):
        return [Failure(o, "parse", FATAL, "not_json", "") for o in these]

    assert divert.divert(bench.place(0), failures(offsets[:10])) == {"dead": 10}
    mixed = [*failures(offsets[10:20]), Failure(offsets[20], "redis", "transient", "store_unavailable", "")]
    with pytest.raises(DeadLetterLimit, match="stage parse is stopped"):
        divert.divert(bench.place(0), mixed)
    assert (operator.told, sorted(divert.stopped())) == ([["parse"]], ["parse"])
    assert (len(bench.stored("dead")), bench.stored("retry.1s")) == (10, [])
    assert divert.divert(bench.place(0), mixed[-1:]) == {"retry.1s": 1}, "what goes to retry is not stopped"
    operator.allows = True
    assert divert.divert(bench.place(0), mixed[:-1]) == {"dead": 10}
    assert divert.stopped() == {}
    assert operator.told == [["parse"], []], "the alarm ends with the stop"
