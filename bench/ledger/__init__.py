"""The ledger: holds a truth file against SQL, Redis and `dead`, and says check by check whether they agree.

It shares no rule of parsing or counting with the pipeline that it judges. What each check compares is
documented in docs/ledger.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bench.ledger import dead_side, redis_checks, redis_side, sql_checks, sql_side
from bench.ledger.dead_side import DeadSide
from bench.ledger.expected import AMOUNT, CATEGORY, GENDER, PROVINCE, TYPE, USER, Expected, fields_of, load
from bench.ledger.redis_side import RedisSide
from bench.ledger.report import Check, Report, compare
from bench.ledger.sql_checks import Sides
from bench.ledger.sql_side import SqlSide
from bench.ledger.sums import DAY, HOUR, MINUTE, SECOND, Sums
from clicktide.errors import ClicktideError
from clicktide.pseudonym import stored_id
from clicktide.settings import Settings

__all__ = ["Check", "Report", "check", "check_until"]

_SECONDS_BACK = 600  # so many seconds of the truth's range are compared second by second, the last ones
_MARGIN_S = 120  # a bucket about to expire is not looked for
_PAUSE_S = 1.0
_SIZES = {"s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}
_TTLS = {
    "s": "buckets.second_ttl_h",
    "m": "buckets.minute_ttl_h",
    "h": "buckets.hour_ttl_h",
    "d": "buckets.day_ttl_h",
}


def check(truth_path: Path, settings: Settings, *, only: bool = False, now: float | None = None) -> Report:
    """Compare once. `only`: the truth must be all there is in the stores, and Redis must equal it exactly.

    Raises `TruthError` for a file that is no truth, `StoreUnavailable` and `LogUnavailable` when a store is away.
    `now` (s) decides which buckets may have expired.
    """
    return _check(_load(truth_path, settings), settings, only=only, now=time.time() if now is None else now)


def _load(truth_path: Path, settings: Settings) -> Expected:
    return load(truth_path, partial(stored_id, settings))


def check_until(
    truth_path: Path,
    settings: Settings,
    wait_s: float,
    *,
    only: bool = False,
    on_try: Callable[[Report | None], None] = lambda _: None,
) -> Report:
    """Compare again and again until it balances or `wait_s` is over; a store that is away counts as not yet.

    `on_try` is told each report that does not balance (None: a store was away).
    """
    expected = _load(truth_path, settings)
    until = time.monotonic() + wait_s
    while True:
        report: Report | None = None
        try:
            report = _check(expected, settings, only=only, now=time.time())
            if report.balanced or time.monotonic() >= until:
                return report
        except ClicktideError as e:
            if not e.retriable or time.monotonic() >= until:
                raise
        on_try(report)
        time.sleep(_PAUSE_S)


class Scope(NamedTuple):
    """What is compared bucket by bucket: the truth's range, and the first starts that cannot have expired (all in s)."""

    first: int
    last: int
    seconds_from: int
    kept: dict[str, int]

    def sums(self) -> Sums:
        return Sums(self.first, self.last, self.seconds_from)

    def wants(self, granularity: str, start: int) -> bool:
        """Whether the bucket lies in the range and must still be there."""
        size = _SIZES[granularity]
        return max(self.first - self.first % size, self.kept[granularity]) <= start <= self.last


def scope_of(expected: Expected, settings: Settings, now: float) -> Scope:
    """The scope of a truth that is checked at `now` (s)."""
    first_ms, last_ms = expected.counted_range or (0, -1)
    first, last = first_ms // 1000, last_ms // 1000
    seconds_from = max(first, last - _SECONDS_BACK)
    kept = {g: int(now - settings.number(ttl) * 3600) + _MARGIN_S for g, ttl in _TTLS.items()}
    return Scope(first, last, seconds_from, {**kept, "s": max(kept["s"], seconds_from)})


def _check(expected: Expected, settings: Settings, *, only: bool, now: float) -> Report:
    scope = scope_of(expected, settings, now)
    # Redis last: what comes in between is then seen there only, and shows as a difference, never as agreement.
    dead = dead_side.collect(expected, settings)
    sql = sql_side.collect(expected, settings, scope.sums())
    redis = redis_side.collect(settings, sql.users, scope.wants)
    return judge(Sides(expected, sql, dead), redis, scope, settings, only=only, now=now)


def judge(
    sides: Sides, redis: RedisSide, scope: Scope, settings: Settings, *, only: bool, now: float
) -> Report:
    """All checks of what was collected; pure, but that SQL's sums are adjusted to the dead letters."""
    expected, sql, dead = sides
    report = Report()
    if not expected.kinds:
        report.checks.append(compare("records in the truth", "at least 1", 0, ok=False))
        return report
    if before := sql_checks.sent_before(sides):
        report.notes.append(
            f"{before} events were stored by an earlier run with the same ids, with its times"
        )
    report.checks += sql_checks.checks(sides)
    report.checks += redis_checks.timelines(
        sides,
        redis,
        settings.integer("timeline.length"),
        int(settings.number("timeline.ttl_h") * 3_600_000),
        int(now * 1000),
    )
    _account_for_dead(sides, redis)
    report.checks.append(
        redis_checks.totals("Redis totals equal the sum of all rows", sql.sums.totals(), redis)
    )
    report.checks += redis_checks.buckets("the sum of all rows", sql.sums, redis, scope.kept)
    if only:
        report.checks.append(compare("rows beyond the truth in the store", 0, sql.others))
    if sql.others == 0 and not dead.events:
        own = _sums_of_truth(expected, sql, scope.sums())
        report.checks.append(redis_checks.totals("Redis totals equal the truth", own.totals(), redis))
        report.checks += redis_checks.buckets("the truth", own, redis, scope.kept)
    report.notes += _notes(expected, sql, dead)
    return report


def _account_for_dead(sides: Sides, redis: RedisSide) -> None:
    """Make SQL's sums what Redis must show: without events dead-lettered there, with those SQL refused."""
    sql, dead = sides.sql, sides.dead
    for event_id, letters in dead.events.items():
        if all(letter.code == "id_conflict" for letter in letters):
            continue
        letter = letters[-1]
        occurred_at, content = fields_of(letter.event, person=sides.expected.person)
        in_sql = event_id in sql.rows
        user = content[USER]
        in_redis = any(entry.event_id == event_id for entry in redis.timelines.get(user, ()))
        sign = 0
        if dead.failed_at(event_id, "redis") and in_sql and not in_redis:
            sign = -1
        elif dead.failed_at(event_id, "mysql") and not in_sql:
            sign = 1
        if sign and event_id in sides.expected.facts:
            sql.sums.add(
                occurred_at,
                content[TYPE],
                content[GENDER],
                content[PROVINCE],
                content[CATEGORY],
                content[AMOUNT],
                late=letter.received_at - occurred_at > sql.late_after_ms,
                sign=sign,
            )


def _sums_of_truth(expected: Expected, sql: SqlSide, sums: Sums) -> Sums:
    for event_id, fact in expected.facts.items():
        if event_id in expected.unknown and event_id not in sql.rows:
            continue
        row = sql.rows.get(event_id)
        # A replay does not know which of its rows are late: that depends on when they came in.
        late = fact.late or (row is not None and row.received_at - fact.occurred_at > sql.late_after_ms)
        # Of the times that it was sent with, the one that was taken first is the one that counts.
        at = row.occurred_at if row is not None and row.occurred_at in expected.times(event_id) else None
        content = fact.content
        sums.add(
            fact.occurred_at if at is None else at,
            content[TYPE],
            content[GENDER],
            content[PROVINCE],
            content[CATEGORY],
            content[AMOUNT],
            late=late,
        )
    return sums


def _notes(expected: Expected, sql: SqlSide, dead: DeadSide) -> list[str]:
    kinds = ", ".join(f"{kind} {n}" for kind, n in sorted(expected.kinds.items()))
    notes = [f"truth: {sum(expected.kinds.values())} records ({kinds}), {len(expected.facts)} ids"]
    if dead.codes:
        codes = ", ".join(f"{code or 'none'} {n}" for code, n in sorted(dead.codes.items()))
        notes.append(f"codes of the malformed: {codes}")
    if sql.others:
        notes.append(
            f"{sql.others} rows of other runs are in the store; Redis is compared with all rows in SQL"
        )
    own_dead = sum(event_id in expected.facts for event_id in dead.events)
    if own_dead:
        notes.append(f"{own_dead} events of this truth are dead-lettered: see ./tide dead list")
    return notes
