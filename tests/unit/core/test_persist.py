"""Persist and apply behind their breakers, on scripted stores: who fails how, and who goes on."""

from __future__ import annotations

import gc
import weakref

import pytest
from unit.core.making import Clock, row

from clicktide import persist
from clicktide.breaker import CLOSED, HALF_OPEN, OPEN, Breaker, Breakers
from clicktide.errors import StoreRefused, StoreUnavailable
from clicktide.redisstore.store import Applied
from clicktide.retry.policy import FATAL, STORE_WIDE, TRANSIENT, UNKNOWN
from clicktide.row import OFFSET, SHARD
from clicktide.sql.write import RowOutcome, Written

AWAY = StoreUnavailable("redis", "it is away")


class Script:
    """Answers what the script says, one entry a call; an exception is raised. After its end: the last entry again."""

    def __init__(self, *script):
        self.script, self.calls = list(script), []

    def __call__(self, *arguments):
        self.calls.append(arguments)
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(answer, Exception):
            raise answer
        return answer(*arguments) if callable(answer) else answer


def applied(rows=(), duplicates=(), conflicts=(), replays=(), failed=None):
    return Applied(frozenset(duplicates), frozenset(conflicts), frozenset(replays), failed or {})


class Fast:
    def __init__(self, *script):
        self.apply = Script(*script)


class Sql:
    """Two DSNs, by the shard's last bit. Without a script all is written."""

    def __init__(self, *script, each=()):
        self._write, self._each = Script(*(script or (Written(0, []),))), Script(*(each or (None,)))
        self.write, self.write_each = self._write, self._each

    def dsn_of(self, shard):
        return shard % 2


def rows_of(*offsets, shard=0):
    made = [row(f"e{o}", offset=o) for o in offsets]
    for r in made:
        r[SHARD] = shard
    return made


def breaker(clock=None, failures=3):
    return Breaker(clock or Clock(), failures, 5.0)


def opened(clock):
    made = breaker(clock)
    for _ in range(3):
        made.failed()
    return made


def short(failures):
    return [(f.offset, f.stage, f.kind, f.code) for f in failures]


# -- apply


def test_nothing_to_apply_asks_nobody():
    fast = Fast(AWAY)
    assert persist.apply(fast, breaker(), []) == ([], [], 0, 0)
    assert fast.apply.calls == []


def test_applied_rows_go_on_and_so_do_replays():
    rows = rows_of(1, 2, 3)
    found = persist.apply(Fast(applied(replays=[1])), breaker(), rows)
    assert found == (rows, [], 0, 0)


def test_duplicates_are_dropped_and_conflicts_are_dead():
    rows = rows_of(1, 2, 3, 4)
    found = persist.apply(Fast(applied(duplicates=[0, 2], conflicts=[3])), breaker(), rows)
    assert found.rows == [rows[1]]
    assert found.duplicates == 2
    assert short(found.failures) == [(4, "redis", FATAL, "id_conflict")]


def test_rows_of_a_shard_that_failed_go_on_and_are_named():
    rows = rows_of(1, 2)
    found = persist.apply(Fast(applied(failed={1: AWAY})), breaker(), rows)
    assert found.rows == rows, "SQL keeps them single by its own key"
    assert short(found.failures) == [(2, "redis", TRANSIENT, "store_unavailable")]
    refused = persist.apply(Fast(applied(failed={1: StoreRefused("redis", "WRONGTYPE")})), breaker(), rows)
    assert short(refused.failures) == [(2, "redis", UNKNOWN, "store_refused")]


def test_redis_away_all_go_on_and_all_are_named():
    rows = rows_of(1, 2)
    fast = Fast(AWAY)
    found = persist.apply(fast, breaker(), rows)
    assert found.rows == rows
    assert short(found.failures) == [(o, "redis", TRANSIENT, "store_unavailable") for o in (1, 2)]
    assert len(fast.apply.calls) == 2, "once more at once: a restarted server closes old connections"


def test_one_hiccup_is_nobodys_business():
    assert persist.apply(Fast(AWAY, applied()), b := breaker(), rows_of(1)).failures == []
    assert b.failures == 0


def test_the_breaker_opens_and_then_nobody_calls():
    clock = Clock()
    b, fast = breaker(clock), Fast(AWAY)
    kinds = [persist.apply(fast, b, rows_of(1)).failures[0].kind for _ in range(5)]
    assert kinds == [TRANSIENT, TRANSIENT, STORE_WIDE, STORE_WIDE, STORE_WIDE]
    assert b.state == OPEN
    assert len(fast.apply.calls) == 6

    clock.pass_(5.0)
    assert persist.apply(fast, b, rows_of(1)).failures[0].kind == STORE_WIDE
    assert len(fast.apply.calls) == 7, "a probe is one call"
    clock.pass_(5.0)
    fast.apply.script = [applied()]
    assert persist.apply(fast, b, rows_of(1)).failures == []
    assert b.state == CLOSED


@pytest.mark.parametrize("store", ["redis", "mysql"])
def test_a_failure_says_for_how_long_its_store_has_been_away(store):
    """With the call or without it; a hiccup is of no age."""
    clock = Clock()
    breakers = Breakers(clock, 2, 5.0)

    def attempt():
        if store == "redis":
            return persist.apply(Fast(AWAY), breakers.of("redis"), rows_of(1)).failures[0]
        return persist.persist(Sql(AWAY), breakers, rows_of(1))[0]

    found = []
    for passed in (0.0, 1.5, 1.5, 10.0):
        clock.pass_(passed)
        failure = attempt()
        found.append((failure.kind, failure.away_s))
    assert found == [(TRANSIENT, 0.0), (STORE_WIDE, 1.5), (STORE_WIDE, 3.0), (STORE_WIDE, 13.0)]


def test_a_refusal_of_all_is_of_no_known_class():
    b = breaker()
    found = persist.apply(Fast(StoreRefused("redis", "WRONGTYPE")), b, rows_of(1))
    assert short(found.failures) == [(1, "redis", UNKNOWN, "store_refused")]
    assert b.state == CLOSED


def test_a_refusal_is_an_answer_and_closes_the_breaker():
    clock = Clock()
    b = opened(clock)
    clock.pass_(5.0)
    persist.apply(Fast(StoreRefused("redis", "WRONGTYPE")), b, rows_of(1))
    assert b.state == CLOSED


def test_what_fails_while_the_breaker_is_open_is_not_kept_in_memory():
    class Rows(list):
        __slots__ = ("__weakref__",)

    b = opened(Clock())
    rows = Rows(rows_of(1))
    gone = weakref.ref(rows)
    persist.apply(Fast(applied()), b, rows)
    del rows
    gc.collect()
    assert gone() is None


# -- persist


def test_each_dsn_is_written_once():
    sql = Sql()
    even, odd = rows_of(1, 3), rows_of(2, 4, shard=1)
    mixed = [even[0], odd[0], even[1], odd[1]]
    assert persist.persist(sql, Breakers(Clock(), 3, 5.0), mixed) == []
    assert sql.write.calls == [(0, even), (1, odd)]


def test_no_rows_no_writes():
    sql = Sql(AWAY)
    assert persist.persist(sql, Breakers(Clock(), 3, 5.0), []) == []
    assert sql.write.calls == []


def test_a_dsn_that_is_away_fails_only_its_rows():
    def write(dsn, _rows):
        if dsn == 1:
            raise AWAY
        return Written(0, [])

    rows = [*rows_of(1), *rows_of(2, 3, shard=17)]
    breakers = Breakers(Clock(), 2, 5.0)
    first = persist.persist(Sql(write), breakers, rows)
    assert short(first) == [(o, "mysql.17", TRANSIENT, "store_unavailable") for o in (2, 3)]
    second = persist.persist(Sql(write), breakers, rows)
    assert {f.kind for f in second} == {STORE_WIDE}
    assert breakers.states() == {"mysql.1": OPEN}
    sql = Sql(write)
    third = persist.persist(sql, breakers, rows)
    assert [dsn for dsn, _ in sql.write.calls] == [0], "the one that is open is left alone"
    assert short(third) == [(o, "mysql.17", STORE_WIDE, "store_unavailable") for o in (2, 3)]


def test_sql_conflicts_are_dead():
    found = persist.persist(Sql(Written(1, [1])), Breakers(Clock(), 3, 5.0), rows_of(1, 2, shard=4))
    assert short(found) == [(2, "mysql.4", FATAL, "id_conflict")]


def refusing():
    outcomes = [
        RowOutcome("stored"),
        RowOutcome("refused", StoreRefused("mysql.0", "too long")),
        RowOutcome("conflict"),
    ]
    return Sql(StoreRefused("mysql.0", "something"), each=(outcomes,))


def test_a_refused_row_leaves_the_others_alone():
    found = persist.persist(refusing(), Breakers(Clock(), 3, 5.0), rows_of(1, 2, 3))
    assert short(found) == [(2, "mysql.0", FATAL, "store_refused"), (3, "mysql.0", FATAL, "id_conflict")]
    assert "too long" in found[0].error


def test_a_refused_row_does_not_keep_a_breaker_open():
    """The store is back; that the probe's slice has a row it refuses is no reason to stay away."""
    clock = Clock()
    breakers = Breakers(clock, 1, 5.0)
    breakers.of("mysql.0").failed()
    clock.pass_(5.0)
    persist.persist(refusing(), breakers, rows_of(1, 2, 3))
    assert breakers.states() == {}


def test_a_store_that_goes_away_between_refusing_and_bisecting():
    b = Breakers(Clock(), 1, 5.0)
    sql = Sql(StoreRefused("mysql.0", "something"), each=(AWAY,))
    found = persist.persist(sql, b, rows_of(1, 2))
    assert [f.offset for f in found] == [1, 2]
    assert {(f.code, f.kind) for f in found} == {("store_unavailable", STORE_WIDE)}
    assert b.states() == {"mysql.0": OPEN}, "the breaker hears of it"


def test_half_open_shows():
    clock = Clock()
    b = opened(clock)
    clock.pass_(5.0)
    seen = []

    def look(_rows):
        seen.append(b.state)
        return applied()

    persist.apply(Fast(look), b, rows_of(1))
    assert seen == [HALF_OPEN]


@pytest.mark.parametrize("kind", [ValueError("a bug"), KeyError("x")])
def test_a_bug_raises_so_that_the_slice_fails(kind):
    with pytest.raises(type(kind)):
        persist.persist(Sql(kind), Breakers(Clock(), 3, 5.0), rows_of(1))
    with pytest.raises(type(kind)):
        persist.apply(Fast(kind), breaker(), rows_of(1))


def test_offsets_are_those_of_the_rows():
    assert [r[OFFSET] for r in rows_of(5, 6)] == [5, 6]
