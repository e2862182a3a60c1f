"""Holds: what is parked for a store that is away stays where it is, neither read nor written, and nothing else does."""

from __future__ import annotations

import json

import pytest
from unit.core.making import Clock
from unit.core.memory_log import MemoryConsumer, MemoryLog

from clicktide.buffers import Buffers
from clicktide.holds import PROBE_RECORDS, PROBE_S, Holds, agreed, parked_for
from clicktide.log.port import Outgoing, TopicPartition
from clicktide.retry import envelope
from clicktide.retry.envelope import Envelope, Origin
from clicktide.retry.policy import STORE_WIDE, TRANSIENT

TIER, OTHER = "t.retry.1m", "t.retry.10s"
LONGEST_S = 1800.0
NOW = 1_760_000_000_000
AWAY = {"mysql.1": "mysql.1", "mysql.3": "mysql.1"}


def headers(stage="mysql.1", kind=STORE_WIDE, not_before=0):
    return Envelope(
        Origin("t.events", "ab", 0, 0, NOW), stage=stage, kind=kind, not_before=not_before
    ).headers()


class Bench:
    """Buffers of a retry task over a log in memory: slices of at most 50 records. `away` is what is known of the stores."""

    def __init__(self, partitions=2):
        self.clock, self.wall_ms, self.away = Clock(), NOW, dict(AWAY)
        self.log = MemoryLog(lambda: self.wall_ms)
        self.log.create_topics({TIER: partitions, OTHER: partitions})
        self.consumer = MemoryConsumer(self.log, "group")
        self.consumer.assign({TopicPartition(t, p): 0 for t in (TIER, OTHER) for p in range(partitions)})
        holds = Holds(TIER, LONGEST_S, 1.0, lambda: self.away)
        wall_ms = lambda: self.wall_ms  # noqa: E731
        self.buffers = Buffers(
            self.consumer, 50, 1 << 20, 0.0, self.clock, envelope.not_before, wall_ms, None, holds
        )

    def write(self, count, *, topic=TIER, partition=0, **which):
        records = [Outgoing(topic, b"k", b"v", headers(**which), partition) for _ in range(count)]
        self.log.send(records, 1.0)

    def pass_(self, seconds):
        self.clock.pass_(seconds)
        self.wall_ms += int(seconds * 1000)

    def cut(self):
        """(topic, partition, offsets) of each slice that may go, until there is none."""
        found = []
        for _ in range(1000):
            self.buffers.read(0.0)
            if (ripe := self.buffers.ripe(self.clock())) is None:
                return found
            found.append((*ripe[0], self.buffers.take(*ripe).offsets))
        raise AssertionError("no end of slices")

    def offsets(self):
        return [o for _, _, its in self.cut() for o in its]


@pytest.fixture
def bench():
    return Bench()


def test_nothing_is_held_while_nobody_knows(bench):
    bench.away = {}
    bench.write(120)
    assert bench.offsets() == list(range(120))


def test_held_but_for_a_probe_and_all_of_it_is_there_in_order_when_the_store_is_back(bench):
    bench.write(120)
    probe = list(range(PROBE_RECORDS))
    assert bench.offsets() == probe
    bench.pass_(PROBE_S - 0.01)
    assert bench.offsets() == []
    assert bench.consumer._paused == {TopicPartition(TIER, 0)}
    bench.pass_(0.01)
    assert bench.offsets() == [o + PROBE_RECORDS for o in probe], (
        "its return is noticed without fresh traffic"
    )
    bench.away = {}
    assert bench.offsets() == list(range(2 * PROBE_RECORDS, 120))
    assert not bench.consumer._paused


def test_a_long_outage_costs_its_probes(bench):
    for partition in range(2):
        bench.write(5000, partition=partition)
    seen = []
    for _ in range(600):
        seen += bench.offsets()
        bench.pass_(0.5)
    assert len(seen) == 300 / PROBE_S * PROBE_RECORDS, (
        "one probe a store, however many partitions wait for it"
    )


def test_each_store_has_its_probes(bench):
    bench.away |= {"redis": "redis"}
    bench.write(100, partition=0)
    bench.write(100, partition=1, stage="redis")
    assert [its[1:] for its in bench.cut()] == [(p, list(range(PROBE_RECORDS))) for p in range(2)]


def test_other_partitions_and_topics_go_on(bench):
    bench.write(20, partition=0)
    bench.write(20, partition=1, stage="mysql.2")
    bench.write(20, topic=OTHER)
    found = bench.cut()
    assert sorted(its[:2] for its in found) == [(OTHER, 0), (TIER, 0), (TIER, 1)]
    assert {its[:2]: len(its[2]) for its in found} == {
        (TIER, 0): PROBE_RECORDS,
        (TIER, 1): 20,
        (OTHER, 0): 20,
    }


@pytest.mark.parametrize(
    "other",
    [{"stage": "mysql.2"}, {"stage": "redis"}, {"kind": TRANSIENT}, {"stage": ""}, {"stage": "parse"}],
)
def test_others_in_between_are_not_held_with_it(bench, other):
    """Those before it have to make way, those behind it stay."""
    bench.write(30)
    bench.write(1, **other)
    bench.write(60)
    probes = bench.offsets()
    assert probes[:31] == list(range(31))
    assert probes[31:] == list(range(31, 31 + PROBE_RECORDS))
    assert bench.offsets() == []


def test_what_has_been_held_for_long_goes_on(bench):
    """Others may lie behind it, and the log does not keep it for ever."""
    bench.write(60)
    bench.pass_(LONGEST_S - 1.0)
    bench.write(60)
    assert bench.offsets() == list(range(PROBE_RECORDS))
    bench.pass_(1.0)
    assert bench.offsets() == list(range(PROBE_RECORDS, 60))
    assert bench.offsets() == []


def test_when_the_store_is_back_nothing_waits_for_its_own_time(bench):
    """Nor does a probe: the records between are as likely to be due a minute later."""
    later = {"not_before": NOW + 59_000}
    bench.write(30, **later)
    bench.write(30, topic=OTHER, **later)
    bench.write(30, partition=1, stage="mysql.2", **later)
    assert bench.cut() == [(TIER, 0, list(range(PROBE_RECORDS)))]
    bench.away = {}
    assert bench.cut() == [(TIER, 0, list(range(PROBE_RECORDS, 30)))], "of that store, in that tier"


@pytest.mark.parametrize(
    ("parked_s", "now_s", "goes"),
    [
        (0, 0, True),
        (0, 59, True),
        (1, 1, False),
        (1, 4, False),
        (1, 5, True),
        (5, 6, True),
        (6, 6, False),
        (6, 59, False),
    ],
)
def test_what_is_parked_after_it_was_back_waits_its_time(bench, parked_s, now_s, goes):
    """It is not tried again at once, and again; but what a breaker refused that had not noticed yet does not wait for a minute."""
    bench.write(1, partition=1)
    bench.cut()
    bench.away = {}
    bench.cut()
    bench.pass_(parked_s)
    bench.write(30, not_before=NOW + 60_000)
    bench.pass_(now_s - parked_s)
    assert bool(bench.cut()) == goes


def test_a_divert_bolt_whose_clock_is_behind_makes_nothing_go_round_for_long(bench):
    bench.write(1, partition=1)
    bench.cut()
    bench.away = {}
    bench.cut()
    bench.pass_(60.0)
    bench.wall_ms -= 120_000
    bench.write(30, not_before=NOW + 120_000)
    bench.wall_ms += 120_000
    assert bench.cut() == []


def test_what_is_not_due_waits_as_ever_where_nobody_knows(bench):
    bench.away = {}
    bench.write(20, not_before=NOW + 5000)
    assert bench.offsets() == []
    bench.pass_(5.0)
    assert bench.offsets() == list(range(20))


def test_held_again_when_it_is_away_again(bench):
    bench.write(30)
    bench.cut()
    bench.away = {}
    bench.write(30)
    assert len(bench.offsets()) == 50
    bench.away = dict(AWAY)
    bench.write(30)
    assert bench.offsets() == [], "and the probe's time is still running"


def test_what_is_read_anew_is_looked_at_anew(bench):
    """The same offsets of a topic made anew may hold anything."""
    bench.write(50)
    bench.cut()
    anew = Bench()
    anew.write(PROBE_RECORDS)
    anew.write(50 - PROBE_RECORDS, stage="mysql.2")
    anew.consumer.seek(TopicPartition(TIER, 0), PROBE_RECORDS)
    bench.buffers._consumer = anew.consumer
    bench.buffers.clear()
    assert bench.offsets() == list(range(PROBE_RECORDS, 50))


def test_what_a_record_waits_for():
    assert parked_for(headers("mysql.17")) == "mysql.17"
    assert parked_for(headers("mysql.17", TRANSIENT)) == ""
    assert parked_for(()) == ""
    assert parked_for((("tide-stage", b"\xff"), ("tide-error-class", b"store_wide"))) == "\ufffd"


def said(at=NOW, **stores):
    return json.dumps(
        {"at": at, "away": {store.replace("_", "."): its for store, its in stores.items()}}
    ).encode()


def test_what_all_agree_on_is_away():
    one = said(mysql_1=["mysql.1", "mysql.3"], redis=["redis"])
    two = said(mysql_1=["mysql.1", "mysql.3"])
    silent = {b"persist": b'{"at": %d, "breakers": {"mysql.0": "open"}}' % NOW}
    assert agreed({b"1": one, **silent}, NOW) == AWAY | {"redis": "redis"}
    assert agreed({b"1": one, b"2": two, **silent}, NOW) == AWAY
    assert agreed({b"2": two, b"1": one}, NOW) == AWAY
    assert agreed({b"1": one, b"2": two, b"3": said()}, NOW) == {}, "one goes on"
    assert agreed(silent, NOW) == agreed({}, NOW) == {}


@pytest.mark.parametrize("off_ms", [60_001, -60_001, 10**15])
def test_a_bolt_that_is_silent_or_whose_clock_is_wrong_holds_nothing(off_ms):
    dead = said(NOW - off_ms, mysql_1=["mysql.1"])
    assert agreed({b"1": dead}, NOW) == {}
    alive = said(NOW - 60_000, mysql_1=["mysql.1"])
    assert agreed({b"1": dead, b"2": alive}, NOW) == {"mysql.1": "mysql.1"}
    assert agreed({b"1": said(NOW - off_ms), b"2": alive}, NOW) == {"mysql.1": "mysql.1"}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[",
        b"[]",
        b"1",
        b'{"at":"x","away":{}}',
        b'{"away":{"a":["b"]}}',
        b'{"at":Infinity,"away":{}}',
        b"\xff",
    ]
    + [json.dumps({"at": NOW, "away": away}).encode() for away in ({"a": 1}, None, "mysql")],
)
def test_what_cannot_be_read_was_not_said(text):
    assert agreed({b"1": text}, NOW) == {}
    assert agreed({b"1": text, b"2": said(redis=["redis"])}, NOW) == {"redis": "redis"}
