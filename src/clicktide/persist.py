"""Persist and apply behind their breakers: what a bolt does with a slice's rows, and which of them failed how.

Promises: one store's failure delays only that store's rows; nothing raises for a store that is away; every row
is either written or named in the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from clicktide.breaker import CLOSED, Breaker, Breakers
from clicktide.errors import StoreError, StoreRefused, StoreUnavailable
from clicktide.redisstore.cluster import PartAway
from clicktide.redisstore.store import Applied
from clicktide.retry.policy import FATAL, STORE_WIDE, TRANSIENT, UNKNOWN
from clicktide.row import OFFSET, SHARD, Row
from clicktide.slices import Failure
from clicktide.sql.write import RowOutcome, Written

T = TypeVar("T")

REDIS = "redis"


class Sql(Protocol):
    def dsn_of(self, shard: int) -> int: ...
    def write(self, dsn_index: int, rows: Sequence[Row]) -> Written: ...
    def write_each(self, dsn_index: int, rows: Sequence[Row]) -> list[RowOutcome]: ...


class Fast(Protocol):
    def apply(self, rows: Sequence[Row]) -> Applied: ...


class Outcome(NamedTuple):
    """A slice after Redis: rows to go on to SQL, what failed, how many were dropped as duplicates and as an erased user's."""

    rows: list[Row]
    failures: list[Failure]
    duplicates: int
    erased: int = 0


def persist(sql: Sql, breakers: Breakers, rows: Sequence[Row]) -> list[Failure]:
    """Write rows to their DSNs, one transaction each."""
    by_dsn: dict[int, list[Row]] = {}
    by_shard: dict[int, list[Row]] = {}
    for row in rows:
        its = by_shard.get(row[SHARD])
        if its is None:
            # Asked once a shard: the answer takes as long as writing a row's text.
            its = by_shard[row[SHARD]] = by_dsn.setdefault(sql.dsn_of(row[SHARD]), [])
        its.append(row)
    failures: list[Failure] = []
    for dsn, its in by_dsn.items():
        failures += _persist_at(sql, breakers.of(sql_store(dsn)), dsn, its)
    return failures


def sql_store(dsn: int) -> str:
    """The name of a DSN's breaker."""
    return f"mysql.{dsn}"


def _persist_at(sql: Sql, breaker: Breaker, dsn: int, rows: list[Row]) -> list[Failure]:
    if not breaker.allows():
        away_s = breaker.away_s
        return [
            _sql_failure(row, STORE_WIDE, "store_unavailable", "its breaker is open", away_s) for row in rows
        ]
    try:
        conflicts = _guarded(breaker, lambda: sql.write(dsn, rows)).conflicts
        return [_id_conflict(rows[i], f"mysql.{rows[i][SHARD]}") for i in conflicts]
    except StoreRefused:
        return _persist_each(sql, breaker, dsn, rows)
    except StoreUnavailable as e:
        return _all_unavailable(rows, breaker, e)


def _persist_each(sql: Sql, breaker: Breaker, dsn: int, rows: list[Row]) -> list[Failure]:
    """The store refused something: all but the offenders are written."""
    try:
        outcomes = _guarded(breaker, lambda: sql.write_each(dsn, rows))
    except StoreUnavailable as e:
        return _all_unavailable(rows, breaker, e)
    failures = []
    for row, outcome in zip(rows, outcomes, strict=True):
        if outcome.state == "refused":
            failures.append(_sql_failure(row, FATAL, "store_refused", str(outcome.error)))
        elif outcome.state == "conflict":
            failures.append(_id_conflict(row, f"mysql.{row[SHARD]}"))
    return failures


def apply(fast: Fast, breaker: Breaker, rows: Sequence[Row]) -> Outcome:
    """Claim and apply the rows in Redis. Rows that Redis could not be asked about go on to SQL all the same, whose
    unique key keeps them single, and are named as failed: Redis gets them by retry."""
    if not rows:
        return Outcome([], [], 0)
    try:
        if not breaker.allows():
            # A new one each time: an exception keeps the frames it was raised through, and those the slice's rows.
            raise StoreUnavailable(REDIS, "its breaker is open")
        done = _guarded(breaker, lambda: fast.apply(rows))
    except StoreError as e:
        return Outcome(list(rows), [_redis_failure(row, breaker, e) for row in rows], 0)
    failures = [_redis_failure(rows[i], breaker, e) for i, e in done.failed.items()]
    failures += [_id_conflict(rows[i], REDIS) for i in sorted(done.conflicts)]
    dropped = done.duplicates | done.conflicts | done.erased
    left = [row for i, row in enumerate(rows) if i not in dropped]
    return Outcome(left, failures, len(done.duplicates), len(done.erased))


def _guarded(breaker: Breaker, call: Callable[[], T]) -> T:
    """The call's answer, tried twice at once (a restarted server closes old connections); tells the breaker.

    A refusal is an answer too: the store is there.
    """
    for last in (False, True):
        try:
            answer = call()
        except StoreUnavailable:
            if last or breaker.state != CLOSED:
                breaker.failed()
                raise
        except StoreRefused:
            breaker.succeeded()
            raise
        else:
            breaker.succeeded()
            return answer
    raise AssertionError


def _unavailable(breaker: Breaker) -> str:
    return TRANSIENT if breaker.state == CLOSED else STORE_WIDE


def _redis_failure(row: Row, breaker: Breaker, error: StoreError) -> Failure:
    if isinstance(error, PartAway):
        kind = STORE_WIDE  # its node has a breaker of its own; the others' closed one says nothing of it
    else:
        kind = _unavailable(breaker) if error.retriable else UNKNOWN
    return Failure(row[OFFSET], REDIS, kind, error.code, str(error), breaker.away_s)


def _all_unavailable(rows: Sequence[Row], breaker: Breaker, error: StoreUnavailable) -> list[Failure]:
    kind, away_s = _unavailable(breaker), breaker.away_s
    return [_sql_failure(row, kind, error.code, str(error), away_s) for row in rows]


def _sql_failure(row: Row, kind: str, code: str, error: str, away_s: float = 0.0) -> Failure:
    return Failure(row[OFFSET], f"mysql.{row[SHARD]}", kind, code, error, away_s)


def _id_conflict(row: Row, stage: str) -> Failure:
    return Failure(
        row[OFFSET], stage, FATAL, "id_conflict", "this event_id is taken by an event of other content"
    )
