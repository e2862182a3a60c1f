"""A burst of nothing but bad records, and a row that no shard takes, through the real topology on localstorm; the ledger judges."""

from __future__ import annotations

import sqlite3
import time
from itertools import islice
from pathlib import Path

import orjson
import pytest
from filled_stores import Stores
from redis_server import redis_server

from bench import ledger
from bench.generator import Mix, events
from bench.truth import MALFORMED, Record, TruthWriter
from clicktide import topics
from clicktide.log.port import Outgoing, TopicPartition
from clicktide.retry import alarms, envelope
from localstorm.testing import run_topology

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[3]
BURST, BAD = 60, 200


@pytest.fixture
def stores(tmp_path):
    with redis_server(tmp_path) as url:
        # No slice holds as many as the limit, and nothing but the operator ends the stop, however slow the machine is.
        limits = {"slice.records": 20, "retry.dead_burst": BURST}
        limits |= {"retry.dead_window_s": 600.0, "retry.dead_probe_s": 300.0, "commit.delay_s": 0.5}
        made = Stores(tmp_path, url, **limits)
        yield made
        made.close()


def generated(count: int, run: str, mix: Mix) -> list[Record]:
    return list(islice(events(5, start_ms=int(time.time() * 1000) - 1000, run=run, mix=mix), count))


def refuse(folder: Path, event_id: str) -> None:
    """Whatever shard the event belongs to takes all rows but its."""
    for shard in folder.glob("shard-*.sqlite"):
        with sqlite3.connect(shard) as db:
            db.execute(
                "CREATE TRIGGER refuse BEFORE INSERT ON events"
                f" WHEN new.event_id = '{event_id}' BEGIN SELECT RAISE(ABORT, 'never'); END"
            )
        db.close()


def letters(stores: Stores) -> list[envelope.Envelope]:
    consumer = stores.log.consumer("test")
    dead = [TopicPartition(stores.topic(topics.DEAD), p) for p in range(2)]
    ends = consumer.bounds(dead)
    found = [consumer.fetch(p, range(*ends[p]), 5.0) for p in dead]
    consumer.close()
    return [envelope.read(record, "") for of_one in found for record in of_one.values()]


def test_a_burst_stops_at_the_limit_and_the_good_ones_around_it_are_stored(
    tmp_path: Path, stores: Stores
) -> None:
    good = generated(90, "good", Mix(orders=0.2))
    bad = generated(BAD, "bad", Mix(malformed=1.0))
    assert {r.kind for r in bad} == {MALFORMED}
    refused = orjson.loads(good[7].value)["event_id"]
    refuse(tmp_path, refused)
    # Before, among and behind the bad ones, on both partitions.
    records = [*good[:30], *bad[:100], *good[30:60], *bad[100:], *good[60:]]
    stores.send([Outgoing(stores.topic(topics.EVENTS), r.user_id.encode(), r.value) for r in records])
    truth = TruthWriter(tmp_path / "truth.jsonl")
    truth.write(records)
    truth.close()
    namespace = stores.settings.text("redis.namespace")
    at_the_stop: list[int] = []

    def done(_snapshot) -> bool:
        stopped = alarms.stopped(stores.redis, namespace)
        dead = letters(stores)
        if not at_the_stop:
            count = sum(letter.stage == "parse" for letter in dead)
            assert count <= BURST, "what is past the limit waits for the operator"
            if "parse" in stopped:
                at_the_stop.append(count)
                alarms.allow(stores.redis, namespace, "parse", int(time.time() * 1000) + 600_000)
            return False
        return (
            len({letter.origin for letter in dead}) == BAD + 1 and stores.sql.counts().events == len(good) - 1
        )

    options = {f"tide.{k}": stores.settings[k] for k in stores.settings if stores.settings[k] != ""}
    options = {k: v for k, v in options.items() if not k.startswith("tide.retry.classes")}
    run_topology(
        ROOT,
        "events",
        env="embedded",
        log_dir=tmp_path / "logs",
        options=options,
        until=done,
        timeout=200,
        drain=5,
    )
    assert at_the_stop[0] > BURST // 2
    report = ledger.check(tmp_path / "truth.jsonl", stores.settings, only=True)
    assert report.balanced, "\n".join(report.lines())
    (one,) = {
        (x.origin.offset, x.stage.partition(".")[0], x.code) for x in letters(stores) if x.stage != "parse"
    }
    assert one[1:] == ("mysql", "store_refused"), "the row that no shard takes, and none of its neighbours"
    codes = {letter.code for letter in letters(stores)}
    assert codes >= {
        "not_utf8",
        "not_json",
        "not_object",
        "too_large",
        "wrong_type",
        "missing_field",
        "future",
    }
    assert alarms.stopped(stores.redis, namespace) == {}, "the alarm ended with the stop"
