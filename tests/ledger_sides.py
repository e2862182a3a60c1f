"""Made-up stores that agree with a truth, as the ledger's collectors would have read them; tests break them."""

from __future__ import annotations

import heapq

import orjson

from bench import ledger, truth
from bench.generator import Mix, events
from bench.ledger.dead_side import DeadSide
from bench.ledger.expected import AMOUNT, CATEGORY, GENDER, ORDER, PROVINCE, TYPE, USER, Expected
from bench.ledger.redis_side import Entry, RedisSide
from bench.ledger.sql_checks import Sides
from bench.ledger.sql_side import Row, SqlSide, UserEvents
from bench.ledger.sums import DAY, HOUR, MINUTE, SECOND
from bench.truth import Record
from clicktide.orders import Order, Transition
from clicktide.settings import Settings

START_MS = 1_700_000_030_000
NOW = START_MS / 1000 + 120
MIX = Mix(duplicates=0.05, malformed=0.05, late=0.05, orders=0.2)
STEPS = {"order": "ordered", "pay": "paid", "refund": "refunded"}


def records(n=400, mix=MIX) -> list[Record]:
    made = events(7, rate=6, start_ms=START_MS, run="gtest", mix=mix, users=30, items=20)
    return [next(made) for _ in range(n)]


def expected_of(sent: list[Record]) -> Expected:
    expected = Expected()
    for record in sent:
        expected.add(truth.decode_line(truth.encode_line(record)))
    return expected


class World:
    """SQL, Redis and `dead` as they must be after `sent`; `report()` is the ledger's."""

    def __init__(self, sent: list[Record], settings: Settings | None = None) -> None:
        self.settings = settings or Settings({"timeline.length": 15})
        self.expected = expected_of(sent)
        self.scope = ledger.scope_of(self.expected, self.settings, NOW)
        late_ms = int(self.settings.number("events.late_after_h") * 3_600_000)
        self.sql = SqlSide(self.scope.sums(), late_ms)
        self.redis = RedisSide()
        self.dead = DeadSide()
        counted = self.scope.sums()
        at = {}
        for record in sent:
            if record.kind == "malformed":
                self.dead.malformed[ledger.expected.digest(record.value)].add(record.value[:20] or b"0")
                self.dead.codes["bad_value"] += 1
            elif record.kind != "duplicate":
                at[orjson.loads(record.value)["event_id"]] = record.at
        for event_id, fact in self.expected.facts.items():
            self._store(event_id, fact.occurred_at, at[event_id] + 5, fact.content)
            self._count(counted, fact.occurred_at, fact.content, late=fact.late)
            self._count(self.sql.sums, fact.occurred_at, fact.content, late=fact.late)
        keep = self.settings.integer("timeline.length")
        for user, stored in self.sql.users.items():
            stored.newest = heapq.nlargest(keep, stored.newest)
            self.redis.timelines[user] = self.redis.timelines[user][-keep:]
        self.redis.totals = counted.totals()
        sizes = (("s", SECOND), ("m", MINUTE), ("h", HOUR), ("d", DAY))
        self.redis.buckets = {g: counted.buckets(size) for g, size in sizes}

    def _store(self, event_id, occurred_at, received_at, content) -> None:
        sql = self.sql
        sql.total += 1
        sql.rows[event_id] = Row(occurred_at, received_at, content)
        user = sql.users.setdefault(content[USER], UserEvents())
        user.newest.append((occurred_at, event_id))
        user.last_received = max(user.last_received, received_at)
        line = self.redis.timelines.setdefault(content[USER], [])
        line.append(Entry(occurred_at, event_id, occurred_at, content))
        line.sort(key=lambda entry: (entry.score, entry.event_id))
        step = STEPS.get(content[TYPE])
        if step:
            [order] = sql.orders.get(content[ORDER]) or [Order(0, content[ORDER], content[USER])]
            known = getattr(order, step)
            new = Transition(occurred_at, event_id, content[AMOUNT])
            sql.orders[content[ORDER]] = [order._replace(**{step: min(known, new) if known else new})]

    @staticmethod
    def _count(sums, occurred_at, content, *, late) -> None:
        kind, gender, province = content[TYPE], content[GENDER], content[PROVINCE]
        sums.add(occurred_at, kind, gender, province, content[CATEGORY], content[AMOUNT], late=late)

    def report(self, *, only=False) -> ledger.Report:
        sides = Sides(self.expected, self.sql, self.dead)
        return ledger.judge(sides, self.redis, self.scope, self.settings, only=only, now=NOW)

    def failed(self, *, only=False) -> set[str]:
        """The checks that fail, by the first words of their names."""
        return {check.name.partition(" (")[0] for check in self.report(only=only).checks if not check.ok}
