"""The ledger against real stores (SQLite, Redis, the embedded log): it balances, and each damage shows."""

from __future__ import annotations

import sqlite3
import time
from itertools import islice

import orjson
import pytest
from filled_stores import Stores
from redis_server import redis_server

from bench import ledger
from bench.generator import Mix, events
from bench.ledger.report import Report
from bench.truth import TruthWriter
from clicktide import keys, topics
from clicktide.errors import StoreUnavailable
from clicktide.log.port import Outgoing
from clicktide.settings import Settings

pytestmark = pytest.mark.embedded

MIX = Mix(duplicates=0.05, malformed=0.05, late=0.05, orders=0.2)


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def stores(tmp_path, redis_url):
    stores = Stores(tmp_path, redis_url)
    stores.redis.flushall()
    yield stores
    stores.close()


def made(n=600, run="gtest", seed=3):
    start = int(time.time() * 1000) - 60_000
    found = events(seed, rate=10, start_ms=start, run=run, mix=MIX, users=30, items=40)
    return list(islice(found, n))


def written(path, records):
    writer = TruthWriter(path)
    writer.write(records)
    writer.close()
    return path


@pytest.fixture
def truth(tmp_path, stores):
    records = made()
    stores.fill(records)
    return written(tmp_path / "truth.jsonl", records)


def failed(report: Report) -> set[str]:
    return {check.name.partition(" (")[0] for check in report.checks if not check.ok}


def some(stores, where):
    """(shard, event id, user) of some stored event."""
    for i in range(2):
        for found in stores.sql.scan_events(i, ("shard", "event_id", "user_id", "type", "occurred_at")):
            if where(*found):
                return found[:3]
    raise AssertionError("nothing like that is stored")


def execute(stores, tmp_path, statement, *values):
    for i in range(2):
        with sqlite3.connect(tmp_path / f"shard-{i}.sqlite") as db:
            db.execute(statement, values)
        db.close()


def recent(_shard, _id, _user, event_type, at):
    return event_type == "pay" and at > (time.time() - 3600) * 1000


def test_it_balances_alone_and_beside_another_run(stores, truth, tmp_path):
    alone = ledger.check(truth, stores.settings, only=True)
    assert alone.balanced, alone.lines()
    assert "Redis totals equal the truth" in [check.name for check in alone.checks]
    other = made(run="gother", seed=4)
    stores.fill(other)
    for path in (truth, written(tmp_path / "other.jsonl", other)):
        report = ledger.check(path, stores.settings)
        assert report.balanced, report.lines()
        assert failed(ledger.check(path, stores.settings, only=True)) == {
            "rows beyond the truth in the store"
        }


def test_a_lost_row(stores, truth, tmp_path):
    _, event_id, _ = some(stores, recent)
    execute(stores, tmp_path, "DELETE FROM events WHERE event_id = ?", event_id)
    assert {
        "accepted events are stored or dead",
        "GMV by category and minute in SQL",
        "Redis totals equal the sum of all rows",
    } <= failed(ledger.check(truth, stores.settings))


def test_a_row_in_two_shards(stores, truth, tmp_path):
    shard, event_id, _ = some(stores, recent)
    found = [
        row
        for i in range(2)
        for row in stores.sql.scan_events(i, ("shard", "event_id"))
        if row[1] == event_id
    ]
    assert len(found) == 1
    row = stores.sql.event(event_id)
    row[5] = (shard + 1) % 8
    stores.sql.write(stores.sql.dsn_of(row[5]), [row])
    report = ledger.check(truth, stores.settings)
    assert "rows for these ids" in failed(report), report.lines()


def test_a_wrong_amount(stores, truth, tmp_path):
    _, event_id, _ = some(stores, recent)
    execute(
        stores,
        tmp_path,
        "UPDATE events SET body = json_set(body, '$[6]', json_extract(body, '$[6]') + 1) WHERE event_id = ?",
        event_id,
    )
    assert {"rows that say what was sent", "GMV by category and minute in SQL"} <= failed(
        ledger.check(truth, stores.settings)
    )


def test_an_order_that_was_never_paid(stores, truth, tmp_path):
    execute(stores, tmp_path, "UPDATE orders SET paid_at = NULL, paid_event = NULL, paid_amount = NULL")
    assert failed(ledger.check(truth, stores.settings)) == {"orders in the state of their events"}


def test_an_event_of_the_run_that_was_never_sent(stores, truth):
    first = next(r for r in made(5) if r.kind == "good")
    stores.fill([first._replace(value=first.value.replace(b'"gtest-', b'"gtest-9999'))])
    assert "rows of this run beyond the truth" in failed(ledger.check(truth, stores.settings))


def test_an_event_applied_twice(stores, truth):
    newest = [r for r in made() if r.kind == "good"][-1]
    event_id = orjson.loads(newest.value)["event_id"]
    row = stores.sql.event(event_id)
    stores.show([*row[:4], row[4] + 1, *row[5:]])  # again, with another received_at: a second member
    report = ledger.check(truth, stores.settings)
    assert {
        "users' timelines",
        "Redis totals equal the sum of all rows",
        "second buckets equal the sum of all rows",
        "minute buckets equal the sum of all rows",
        "hour buckets equal the sum of all rows",
        "day buckets equal the sum of all rows",
    } <= failed(report)
    assert f"has {event_id} twice" in "\n".join(report.lines())


def test_a_lost_timeline(stores, truth):
    shard, _, user = some(stores, recent)
    stores.redis.delete(keys.timeline("main", shard, user))
    assert failed(ledger.check(truth, stores.settings)) == {"users' timelines"}


def test_a_cent_too_much_in_one_minute(stores, truth):
    [name, *_] = stores.redis.scan_iter(match="tide:main:*b:m:*")
    stores.redis.hincrby(name, "gmv", 1)
    assert failed(ledger.check(truth, stores.settings)) == {
        "minute buckets equal the sum of all rows",
        "minute buckets equal the truth",
    }


def test_a_malformed_record_that_was_dropped(stores, truth):
    with truth.open("ab") as f:
        f.write(b'{"kind":"malformed","event":null,"raw":"never seen","at":1}\n')
    report = ledger.check(truth, stores.settings)
    assert failed(report) == {"malformed records dead, verbatim, with a code"}
    assert "not dead: never seen" in "\n".join(report.lines())


def test_a_malformed_record_that_is_dead_without_a_code(stores, truth):
    with truth.open("ab") as f:
        f.write(b'{"kind":"malformed","event":null,"raw":"no code","at":1}\n')
    stores.send([Outgoing(stores.topic(topics.DEAD), b"u", b"no code", ((topics.STAGE, b"parse"),))])
    report = ledger.check(truth, stores.settings)
    assert failed(report) == {"malformed records dead, verbatim, with a code"}
    assert "without a code: no code" in "\n".join(report.lines())


def test_a_dead_letter_in_place_of_a_row(stores, tmp_path):
    records = made()
    poison = next(r for r in reversed(records) if r.kind == "good" and b'"view"' in r.value)
    stores.fill([r for r in records if r != poison])
    path = written(tmp_path / "t", [r for r in records if r.kind != "duplicate"])
    assert "accepted events are stored or dead" in failed(ledger.check(path, stores.settings))
    headers = ((topics.STAGE, b"poison"), (topics.ERROR_CODE, b"poison"))
    stores.send([Outgoing(stores.topic(topics.DEAD), poison.user_id.encode(), poison.value, headers)])
    report = ledger.check(path, stores.settings)
    assert report.balanced, report.lines()


@pytest.mark.parametrize("refusing", ["mysql.1", "redis"])
def test_an_event_that_one_store_refused_for_good(stores, tmp_path, refusing):
    records = made()
    dead = next(r for r in reversed(records) if r.kind == "good" and b'"view"' in r.value)
    stores.fill([r for r in records if r != dead])
    path = written(tmp_path / "t", [r for r in records if r.kind != "duplicate"])
    headers = ((topics.STAGE, refusing.encode()), (topics.ERROR_CODE, b"store_refused"))
    stores.send([Outgoing(stores.topic(topics.DEAD), dead.user_id.encode(), dead.value, headers)])
    row = stores.row(orjson.loads(dead.value), dead.at + 5, 999)
    if refusing == "redis":
        stores.sql.write(stores.sql.dsn_of(row[5]), [row])
    else:
        stores.show(row)
    report = ledger.check(path, stores.settings)
    assert report.balanced, report.lines()


def test_waiting_until_it_balances(stores, tmp_path):
    records = made()
    path = written(tmp_path / "t", records)
    tries = []

    def on_try(report):
        tries.append(report)
        stores.fill(records)

    assert ledger.check_until(path, stores.settings, 60, on_try=on_try).balanced
    assert [report.balanced for report in tries] == [False]


def test_a_store_that_is_away_is_named(stores, truth):
    settings = Settings({**stores.settings, "redis.url": "unix:///nowhere.sock"})
    with pytest.raises(StoreUnavailable, match="redis"):
        ledger.check(truth, settings)


def test_unknown_records_may_go_either_way(stores, tmp_path):
    records = made()
    lost = [r for r in records if r.kind == "good"][-2:]
    stores.fill([r for r in records if r != lost[0]])
    sure = [r for r in records if r not in lost and r.kind != "duplicate"]
    path = tmp_path / "t"
    writer = TruthWriter(path)
    writer.write(sure)
    writer.write(lost, unknown=True)
    writer.close()
    report = ledger.check(path, stores.settings)
    assert report.balanced, report.lines()
