"""Redrive: only what failed is tried again, under the record's own origin."""

from __future__ import annotations

from unit.core.making import NOW, PARSER, TOPIC_ID, Clock, raw

from clicktide.breaker import Breakers
from clicktide.errors import StoreRefused, StoreUnavailable
from clicktide.parse import topic_digest
from clicktide.redisstore.store import Applied
from clicktide.redrive import Redrive
from clicktide.retry.envelope import Origin
from clicktide.retry.policy import FATAL, TRANSIENT
from clicktide.row import EVENT_ID, OFFSET, PARTITION, RECEIVED_AT
from clicktide.sql.write import RowOutcome, Written


class Fast:
    """Remembers what it was asked to apply; `conflicts` and `away` are event ids."""

    def __init__(self, conflicts=(), away=()):
        self.rows, self.conflicts, self.away = [], set(conflicts), set(away)

    def apply(self, rows):
        self.rows += rows
        error = StoreUnavailable("redis", "away")
        return Applied(
            frozenset(),
            frozenset(i for i, r in enumerate(rows) if r[EVENT_ID] in self.conflicts),
            frozenset(),
            {i: error for i, r in enumerate(rows) if r[EVENT_ID] in self.away},
        )


class Sql:
    def __init__(self, refused=(), away=False):
        self.rows, self.refused, self.away = [], set(refused), away

    def dsn_of(self, shard):
        return 0

    def write(self, _dsn, rows):
        if self.away:
            raise StoreUnavailable("mysql.0", "away")
        if any(r[EVENT_ID] in self.refused for r in rows):
            raise StoreRefused("mysql.0", "no")
        self.rows += rows
        return Written(len(rows), [])

    def write_each(self, _dsn, rows):
        return [
            RowOutcome("refused", StoreRefused("mysql.0", "no"))
            if r[EVENT_ID] in self.refused
            else (self.rows.append(r), RowOutcome("stored"))[1]
            for r in rows
        ]


class Odd(Sql):
    def dsn_of(self, shard):
        return shard % 2


def origin(offset, topic="tide.events", partition=3):
    return Origin(topic, TOPIC_ID + topic, partition, offset, NOW)


def attempt(fast, sql, records):
    """`records`: (offset in the retry topic, event id, stage, origin)."""
    redrive = Redrive(PARSER, fast, sql, Breakers(Clock(), 3, 5.0))
    return redrive.attempt(
        [r[0] for r in records],
        [raw(r[1]) for r in records],
        [r[2] for r in records],
        [r[3] for r in records],
    )


def ids(rows):
    return [r[EVENT_ID] for r in rows]


def test_only_the_failed_stage_is_tried():
    fast, sql = Fast(), Sql()
    records = [(50, "a", "redis", origin(1)), (51, "b", "mysql.17", origin(2)), (52, "c", "redis", origin(3))]
    assert attempt(fast, sql, records) == []
    assert (ids(fast.rows), ids(sql.rows)) == (["a", "c"], ["b"])


def test_rows_are_those_of_the_first_time():
    """Same topic, partition, offset and timestamp as on the fresh path: else its claim would not be its own."""
    fast = Fast()
    attempt(fast, Sql(), [(50, "a", "redis", origin(17, partition=5))])
    (row,) = fast.rows
    first = PARSER.row(raw("a"), 17, NOW, 5, topic_digest(TOPIC_ID + "tide.events"))
    assert row == first
    assert (row[OFFSET], row[PARTITION], row[RECEIVED_AT]) == (17, 5, NOW)


def test_failures_name_the_place_in_the_retry_topic():
    records = [(50, "a", "redis", origin(1)), (51, "b", "redis", origin(2)), (52, "c", "mysql.0", origin(3))]
    found = attempt(Fast(away=["b"]), Sql(refused=["c"]), records)
    assert [(f.offset, f.kind, f.code) for f in found] == [
        (51, TRANSIENT, "store_unavailable"),
        (52, FATAL, "store_refused"),
    ]


def test_a_record_that_is_no_event_any_more_is_dead():
    found = attempt(Fast(), Sql(), [(50, "\ud800", "redis", origin(1))])
    assert [(f.offset, f.stage, f.kind, f.code) for f in found] == [(50, "parse", FATAL, "not_utf8")]


def test_a_fault_of_one_is_not_its_namesakes():
    """Two topics have the same partition and offset; one record is at fault, the other must not die with it."""
    records = [
        (50, "a", "redis", origin(1, "tide.events")),
        (51, "b", "redis", origin(1, "tide.backfill")),
        (52, "c", "mysql.0", origin(2, "tide.events")),
        (53, "d", "mysql.0", origin(2, "tide.backfill")),
    ]
    fast, sql = Fast(conflicts=["a"]), Sql(refused=["d"])
    found = attempt(fast, sql, records)
    assert [(f.offset, f.code) for f in found] == [(50, "id_conflict"), (53, "store_refused")]
    assert ids(fast.rows) == ["a", "b"]
    assert ids(sql.rows) == ["c"]


def test_a_record_written_twice_is_tried_twice():
    records = [(50, "a", "redis", origin(1)), (51, "a", "redis", origin(1))]
    fast = Fast(away=["a"])
    assert [f.offset for f in attempt(fast, Sql(), records)] == [50, 51]


def test_of_unknown_stage_everything_is_done():
    """A record somebody put there without an envelope, or a dead one sent again: every step can be repeated, none may miss."""
    fast, sql = Fast(away=["b"]), Sql()
    records = [(50, "a", "", origin(1)), (51, "b", "poison", origin(2)), (52, "c", "parse", origin(3))]
    found = attempt(fast, sql, records)
    assert ids(fast.rows) == ["a", "b", "c"]
    assert ids(sql.rows) == ["a", "b", "c"]
    assert [(f.offset, f.stage) for f in found] == [(51, "redis")]


def test_who_has_to_wait_for_a_store_that_is_away():
    """A DSN's shards, by where they are now; a probe that is under way does not make it there again."""
    clock = Clock()
    breakers = Breakers(clock, 1, 5.0)
    redrive = Redrive(PARSER, Fast(away=["r"]), Odd(), breakers)
    assert redrive.away(4) == {}
    redrive.attempt([1], [raw("a")], ["mysql.1"], [origin(1)])
    assert redrive.away(4) == {}
    breakers.of("mysql.1").failed()
    breakers.of("redis").failed()
    assert redrive.away(4) == {"mysql.1": ["mysql.1", "mysql.3"], "redis": ["redis"]}
    clock.pass_(3600.0)
    assert breakers.of("mysql.1").allows()
    assert redrive.away(4) == {"mysql.1": ["mysql.1", "mysql.3"], "redis": ["redis"]}
    for store in ("mysql.1", "redis"):
        breakers.of(store).succeeded()
    assert redrive.away(4) == {}


def test_with_redis_away_sql_is_still_written_and_the_reverse():
    records = [(50, "a", "redis", origin(1)), (51, "b", "mysql.0", origin(2))]
    fast, sql = Fast(away=["a"]), Sql()
    assert [f.offset for f in attempt(fast, sql, records)] == [50]
    assert ids(sql.rows) == ["b"]
    fast, sql = Fast(), Sql(away=True)
    assert [f.offset for f in attempt(fast, sql, records)] == [51]
    assert ids(fast.rows) == ["a"]
