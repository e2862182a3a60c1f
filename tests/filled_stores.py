"""Real stores filled with a truth by the shortest code that could: no pipeline, one event after the other.

`Stores` has an embedded log, SQLite shards and a Redis; `fill` does what the topologies must do in the end.
"""

from __future__ import annotations

from pathlib import Path

import orjson
import redis
from sql_dialects import new_sqlite

from bench.truth import Record
from clicktide import keys, topics
from clicktide.log import open_log
from clicktide.log.port import Outgoing
from clicktide.member import members
from clicktide.row import COLUMNS
from clicktide.settings import Settings
from clicktide.shards import shard_of
from clicktide.sql import SqlStore

SIZES = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Stores:
    """The stores under a folder; `redis_url` is a running server's."""

    def __init__(self, folder: Path, redis_url: str, shards: int = 8, **options) -> None:
        dsns = [new_sqlite(folder / f"shard-{i}.sqlite") for i in range(2)]
        given = {
            "log.path": str(folder / "log.sqlite"),
            "redis.url": redis_url,
            "sql.dsns": " ".join(dsns),
            "shards.count": shards,
            "topics.partitions": 2,
            "timeline.length": 20,
        }
        self.settings = Settings({**given, **options})
        self.redis = redis.Redis.from_url(redis_url)
        self.sql = SqlStore(self.settings)
        self.log = open_log(self.settings)
        admin = self.log.admin()
        admin.create_topics({self.topic(name): 2 for name in topics.ALL})
        admin.close()
        self._seen: set[str] = set()

    def topic(self, name: str) -> str:
        return self.settings.text("topics.prefix") + name

    def fill(self, records: list[Record], delay_ms: int = 5) -> None:
        """Store the records as if each had come in `delay_ms` after its intended time."""
        rows, dead = [], []
        pipe = self.redis.pipeline()
        for n, record in enumerate(records):
            if record.kind == "malformed":
                origin = b"%s:0:%d" % (self.topic(topics.EVENTS).encode(), n)
                headers = (
                    (topics.ERROR_CODE, b"bad_value"),
                    (topics.STAGE, b"parse"),
                    (topics.ORIGIN, origin),
                )
                dead.append(Outgoing(self.topic(topics.DEAD), record.user_id.encode(), record.value, headers))
                continue
            row = self.row(orjson.loads(record.value), record.at + delay_ms, n)
            if row[0] not in self._seen:
                self._seen.add(row[0])
                rows.append(row)
                self.show(row, pipe)
        pipe.execute()
        for dsn in range(len(self.sql.dsns)):
            self.sql.write(dsn, [row for row in rows if self.sql.dsn_of(row[5]) == dsn])
        self.send(dead)

    def send(self, records: list[Outgoing]) -> None:
        producer = self.log.producer()
        if records:
            producer.send(records, 10)
        producer.close()

    def row(self, event, received_at: int, n: int) -> list:
        row = dict.fromkeys(COLUMNS)
        row.update({name: value for name, value in event.items() if name in COLUMNS})
        row["received_at"] = received_at
        row["shard"] = shard_of(event["user_id"], self.settings.integer("shards.count"))
        row["quantity"] = event.get("quantity", 1)
        row["gender"] = event.get("gender", "unknown")
        row.update(fingerprint="ffffffff", topic_id="tttttt", partition=0, offset=n)
        return [row[name] for name in COLUMNS]

    def show(self, row: list, together=None) -> None:
        """One event in Redis, as keys.py says; at once, or with the pipeline `together`."""
        is_ = dict(zip(COLUMNS, row, strict=True))
        ns, shard = self.settings.text("redis.namespace"), is_["shard"]
        line = keys.timeline(ns, shard, is_["user_id"])
        pipe = self.redis.pipeline() if together is None else together
        pipe.zadd(line, {members([row])[0]: is_["occurred_at"]})
        pipe.zremrangebyrank(line, 0, -1 - self.settings.integer("timeline.length"))
        late = (
            is_["received_at"] - is_["occurred_at"] > self.settings.number("events.late_after_h") * 3_600_000
        )
        if late:
            pipe.hincrby(keys.totals(ns, shard), "late", 1)
        second = is_["occurred_at"] // 1000
        names = [(g, keys.bucket(ns, shard, g, second - second % size)) for g, size in SIZES.items()]
        for granularity, name in [] if late else [*names, ("a", keys.totals(ns, shard))]:
            counts = {f"n:{is_['type']}": 1, f"g:{is_['gender']}": 1}
            if granularity != "s":
                counts[f"p:{is_['province'] or ''}"] = 1
            if is_["type"] == "pay":
                counts["gmv"] = is_["amount"]
                if granularity != "s":
                    counts[f"c:{is_['category_id'] or ''}"] = is_["amount"]
            elif is_["type"] == "refund":
                counts["refunds"] = is_["amount"]
            for field, n in counts.items():
                pipe.hincrby(name, field, n)
        if together is None:
            pipe.execute()

    def close(self) -> None:
        self.sql.close()
        self.redis.close()
