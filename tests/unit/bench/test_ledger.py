"""Every check of the ledger, broken on purpose: it fails, and says where."""

from __future__ import annotations

import json

import pytest
from ledger_sides import World, records

from bench import ledger
from bench.ledger.dead_side import Letter
from bench.ledger.expected import AMOUNT, TYPE, digest
from bench.truth import Record, encode_line
from clicktide.settings import Settings

STORED = "accepted events are stored or dead"
ROWS = "rows for these ids"
EXTRA = "rows of this run beyond the truth"
CONTENT = "rows that say what was sent"
TIME = "rows with the time that was sent"
DUPLICATES = "duplicates dropped"
MALFORMED = "malformed records dead, verbatim, with a code"
LATE = "late events"
TYPES = "rows by type"
GMV = "GMV by category and minute in SQL"
REFUNDS = "refunds by category and minute in SQL"
ORDERS = "orders in the state of their events"
TIMELINES = "users' timelines"
TOTALS = "Redis totals equal the sum of all rows"
TOTALS_TRUTH = "Redis totals equal the truth"

SENT = records()


@pytest.fixture
def world():
    return World(SENT)


def one(world, event_type):
    """Some stored event of this type that is not late: (id, row)."""
    return next(
        (i, row)
        for i, row in world.sql.rows.items()
        if row.content[TYPE] == event_type and not world.expected.facts[i].late
    )


def changed(row, position, value):
    content = list(row.content)
    content[position] = value
    return row._replace(content=tuple(content))


def test_what_agrees_balances(world):
    report = world.report(only=True)
    assert report.balanced, report.lines()
    assert len(report.checks) == 24
    assert report.lines()[-1] == "balanced: 24 checks"
    assert report.as_dict()["balanced"]


def test_an_empty_truth_balances_with_nothing():
    assert not World([]).report().balanced


def test_a_row_that_is_missing(world):
    event_id, _ = one(world, "pay")
    del world.sql.rows[event_id]
    assert {STORED, TYPES, GMV} <= world.failed()
    assert f"missing {event_id}" in world.report().checks[0].line()


def test_a_row_that_is_there_twice(world):
    world.sql.twice.append(one(world, "click")[0])
    assert {ROWS, TYPES} <= world.failed()


def test_a_row_in_another_shard(world):
    world.sql.misplaced.append(one(world, "click")[0])
    assert world.failed() == {ROWS}


def test_a_row_of_this_run_that_nobody_sent(world):
    world.sql.extra.append("gtest-999999")
    assert world.failed() == {EXTRA}
    assert world.expected.is_of_a_run("gtest-999999")
    assert not world.expected.is_of_a_run("gother-1")


def test_a_wrong_amount(world):
    event_id, row = one(world, "pay")
    world.sql.rows[event_id] = changed(row, AMOUNT, row.content[AMOUNT] + 1)
    assert world.failed() == {CONTENT, GMV}
    assert f"amount {row.content[AMOUNT]} became {row.content[AMOUNT] + 1}" in "\n".join(
        world.report().lines()
    )


def test_a_wrong_refund(world):
    event_id, row = one(world, "refund")
    world.sql.rows[event_id] = changed(row, AMOUNT, 0)
    assert world.failed() == {CONTENT, REFUNDS}


def test_a_wrong_type(world):
    event_id, row = one(world, "click")
    world.sql.rows[event_id] = changed(row, TYPE, "view")
    assert world.failed() == {CONTENT, TYPES}


def test_a_wrong_time(world):
    event_id, row = one(world, "pay")
    world.sql.rows[event_id] = row._replace(occurred_at=row.occurred_at - 60_000)
    assert world.failed() == {TIME, GMV}


def test_rows_of_an_earlier_replay_keep_their_times(world):
    event_id, row = one(world, "pay")
    world.sql.rows[event_id] = row._replace(
        occurred_at=row.occurred_at - 60_000, received_at=row.received_at - 60_000
    )
    report = world.report()
    assert not {TIME, GMV, ORDERS} & {check.name for check in report.checks if not check.ok}
    assert any(note.startswith("1 events were stored by an earlier run") for note in report.notes)


def test_the_time_of_a_duplicate_is_a_time_that_was_sent(world):
    event_id, others = next(
        (i, t) for i, t in world.expected.other_times.items() if not world.expected.facts[i].late
    )
    row = world.sql.rows[event_id]
    world.sql.rows[event_id] = row._replace(occurred_at=min(others))
    assert TIME not in world.failed()


def test_a_duplicate_that_was_dead_lettered(world):
    event_id = next(iter(world.expected.duplicates))
    world.dead.events[event_id] = [Letter("redis", "id_conflict", {}, 0)]
    assert DUPLICATES in world.failed()


def test_a_malformed_record_that_is_nowhere(world):
    del world.dead.malformed[next(iter(world.expected.malformed))]
    assert world.failed() == {MALFORMED}


def test_a_malformed_record_with_other_bytes(world):
    origins = world.dead.malformed.pop(next(iter(world.expected.malformed)))
    world.dead.malformed[digest(b"altered")] = origins
    assert world.failed() == {MALFORMED}


def test_a_malformed_record_without_a_code(world):
    world.dead.without_code.append("{")
    assert world.failed() == {MALFORMED}


def test_a_late_event_that_was_taken_as_in_time(world):
    event_id, row = next((i, r) for i, r in world.sql.rows.items() if world.expected.facts[i].late)
    world.sql.rows[event_id] = row._replace(received_at=row.occurred_at)
    assert LATE in world.failed()


def test_an_order_that_is_missing(world):
    world.sql.orders.pop(next(iter(world.sql.orders)))
    assert world.failed() == {ORDERS}


def test_an_order_that_is_there_twice(world):
    order_id, found = next(iter(world.sql.orders.items()))
    world.sql.orders[order_id] = found * 2
    assert world.failed() == {ORDERS}


@pytest.mark.parametrize("step", ["ordered", "paid", "refunded"])
@pytest.mark.parametrize("how", ["lost", "amount", "event", "time", "wrongly"])
def test_an_order_in_another_state(world, step, how):
    has = how != "wrongly"
    order_id, [order] = next(
        (i, o)
        for i, o in world.sql.orders.items()
        if (getattr(o[0], step) is not None) == has or step == "ordered"
    )
    is_ = getattr(order, step)
    new = {
        "lost": lambda: None,
        "amount": lambda: is_._replace(amount=is_.amount + 1),
        "event": lambda: is_._replace(event="gtest-0"),
        "time": lambda: is_._replace(at=is_.at + 61_000),
        "wrongly": lambda: (order.ordered or order.paid)._replace(event="gtest-0"),
    }[how]()
    world.sql.orders[order_id] = [order._replace(**{step: new})]
    assert world.failed() == {ORDERS}


def test_an_order_of_another_user(world):
    order_id, [order] = next(iter(world.sql.orders.items()))
    world.sql.orders[order_id] = [order._replace(user_id="somebody")]
    assert world.failed() == {ORDERS}


def busy(world, *, full):
    """A user whose timeline is full, or one whose is not."""
    length = world.settings.integer("timeline.length")
    return next(u for u, line in world.redis.timelines.items() if line and (len(line) == length) == full)


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("double", "twice"),
        ("missing", "lacks"),
        ("extra", "which SQL has not"),
        ("score", " at "),
        ("content", "other content"),
        ("empty", "lacks"),
        ("long", "are kept"),
        ("unreadable", "no rows"),
    ],
)
def test_a_wrong_timeline(world, full, how, words):
    user = busy(world, full=full)
    line = world.redis.timelines[user]
    last = line[-1]
    if how == "double":
        line[0] = last
    elif how == "missing":
        del line[-1]
    elif how == "extra":
        line[-1] = last._replace(event_id="other-1", occurred_at=last.score + 1, score=last.score + 1)
        line.insert(-1, last)
        del line[: -world.settings.integer("timeline.length")]
    elif how == "score":
        line[-1] = last._replace(score=last.score + 1)
    elif how == "content":
        line[-1] = last._replace(content=(*last.content[:-1], "elsewhere"))
    elif how == "empty":
        line.clear()
    elif how == "long":
        line[:0] = [last._replace(event_id=f"old-{i}", score=i, occurred_at=i) for i in range(41)]
    else:
        world.redis.unreadable.append(user)
    assert world.failed() == {TIMELINES}
    assert words in "\n".join(world.report().lines())


def test_the_time_of_an_entry_is_judged_where_the_truth_knows_it(world):
    user = busy(world, full=False)
    last = world.redis.timelines[user][-1]
    at = last.occurred_at + 1000
    world.redis.timelines[user][-1] = last._replace(score=at, occurred_at=at)
    assert "SQL at" in "\n".join(world.report().lines())
    world.expected.other_times[last.event_id] = {at}
    assert TIMELINES not in world.failed()
    # An event of an earlier run that was sent again with another time while Redis was away.
    world._store("other-1", at + 1, at + 1, last.content)
    del world.sql.rows["other-1"]  # which holds the truth's alone
    line = world.redis.timelines[user]
    line[-1] = line[-1]._replace(score=at + 2, occurred_at=at + 2)
    assert TIMELINES not in world.failed()


def test_a_timeline_may_have_left_redis_after_its_time():
    world = World(SENT, Settings({"timeline.length": 15, "timeline.ttl_h": 1}))
    for user in world.sql.users.values():
        user.last_received -= 3_600_000
    world.redis.timelines.clear()
    assert world.failed() == set()


@pytest.mark.parametrize("field", ["n:view", "g:female", "gmv", "refunds", "late", "c:c1", "p:四川"])
def test_a_total_that_is_off_by_one(world, field):
    world.redis.totals[field] = world.redis.totals.get(field, 0) + 1
    assert world.failed() == {TOTALS, TOTALS_TRUTH}
    assert f"{field} " in "\n".join(world.report().lines())


@pytest.mark.parametrize(
    ("granularity", "word"), [("s", "second"), ("m", "minute"), ("h", "hour"), ("d", "day")]
)
@pytest.mark.parametrize("how", ["off by one", "missing", "extra"])
def test_a_wrong_bucket(world, granularity, word, how):
    buckets = world.redis.buckets[granularity]
    start = max(buckets)
    if how == "missing":
        del buckets[start]
    elif how == "extra":
        buckets[start + 1] = {"n:view": 1}
    else:
        buckets[start]["n:view"] = buckets[start].get("n:view", 0) - 1
    assert world.failed() == {f"{word} buckets equal the sum of all rows", f"{word} buckets equal the truth"}


def test_buckets_that_have_expired_are_not_asked_for():
    world = World(
        SENT, Settings({"timeline.length": 15, "buckets.second_ttl_h": 0.1, "buckets.minute_ttl_h": 1})
    )
    assert world.scope.kept["s"] < world.scope.last
    world.scope.kept["s"] = world.scope.last
    world.redis.buckets["s"] = {s: f for s, f in world.redis.buckets["s"].items() if s >= world.scope.last}
    assert world.failed() == set()


def test_other_rows_in_the_store_are_a_matter_of_only(world):
    world.sql.total += 5
    assert world.failed() == set()
    assert world.failed(only=True) == {"rows beyond the truth in the store"}
    assert TOTALS_TRUTH not in [check.name for check in world.report().checks]


def test_a_dead_letter_accounts_for_a_missing_row(world):
    event_id, _row = one(world, "pay")
    del world.sql.rows[event_id]
    world.dead.events[event_id] = [Letter("poison", "poison", {"user_id": "u", "occurred_at": 0}, 0)]
    failed = world.failed()
    assert not {STORED, TYPES, GMV, ORDERS} & failed - {ORDERS}
    world.dead.events[event_id] = [Letter("redis", "store_refused", {"user_id": "u", "occurred_at": 0}, 0)]
    assert STORED in world.failed()


def test_an_event_that_redis_refused_is_not_in_its_sums(world):
    user = busy(world, full=False)
    event_id = next(e.event_id for e in world.redis.timelines[user] if e.content[TYPE] == "view")
    row = world.sql.rows[event_id]
    world.redis.timelines[user] = [e for e in world.redis.timelines[user] if e.event_id != event_id]
    world.redis.totals["n:view"] -= 1
    assert {TIMELINES, TOTALS} <= world.failed()
    event = {
        "event_id": event_id,
        "type": "view",
        "user_id": user,
        "occurred_at": row.occurred_at,
        "gender": "none",
        "province": "none",
    }
    world.dead.events[event_id] = [Letter("redis", "store_refused", event, row.received_at)]
    for name in ("g:none", "p:none"):
        world.redis.totals[name] = -1
    report = world.report()
    assert TIMELINES not in {c.name.partition(" (")[0] for c in report.checks if not c.ok}
    assert [c.ok for c in report.checks if c.name == TOTALS] == [True]


def test_an_unknown_acceptance_may_go_either_way(tmp_path):
    click = next(r for r in SENT if r.kind == "good")
    lost = Record("good", "u1", click.value.replace(b"gtest-", b"gtest-9999"), click.at)
    path = tmp_path / "t"
    path.write_bytes(encode_line(click) + encode_line(lost, unknown=True))
    expected = ledger.load(path)
    assert len(expected.unknown) == 1
    for stored in ([click], [click, lost]):
        world = World(stored)
        world.expected = expected
        assert world.failed() - {TOTALS_TRUTH} == set()


def test_users_are_looked_for_as_the_stores_call_them(tmp_path):
    path = tmp_path / "truth.jsonl"
    event = {"event_id": "g1-1", "type": "view", "user_id": 7, "occurred_at": 1}
    path.write_text(json.dumps({"kind": "good", "event": event, "raw": None, "at": 1}) + "\n")
    (fact,) = ledger.load(path, lambda name: f"hash of {name}").facts.values()
    assert "hash of 7" in fact.content
    assert 7 not in fact.content
