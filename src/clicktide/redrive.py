"""Redrive: tries just the failed stage of a diverted record again.

Promises: what succeeded before is not done again, and a record is either done or named as failed again, with its
own place in the log, so that its claim is still its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from clicktide import persist
from clicktide.breaker import Breakers
from clicktide.parse import Parser, Rejection, topic_digest
from clicktide.persist import Fast, Sql
from clicktide.retry.envelope import Origin
from clicktide.retry.policy import FATAL
from clicktide.row import OFFSET, Row
from clicktide.slices import Failure

_SQL = "mysql."


class _Tried(NamedTuple):
    """A record of the slice: its offset in the retry topic, the stage that failed, its row."""

    offset: int
    stage: str
    row: Row


class Redrive:
    """Re-attempts slices of a retry topic."""

    def __init__(self, parser: Parser, fast: Fast, sql: Sql, breakers: Breakers) -> None:
        self._parser, self._fast, self._sql, self._breakers = parser, fast, sql, breakers

    def attempt(
        self,
        offsets: Sequence[int],
        values: Sequence[bytes],
        stages: Sequence[str],
        origins: Sequence[Origin],
    ) -> list[Failure]:
        """Try each record's stage; `offsets` are those in the retry topic, and so are the failures'."""
        failures: list[Failure] = []
        rounds: list[list[_Tried]] = []
        seen: dict[int, int] = {}
        for offset, value, stage, origin in zip(offsets, values, stages, origins, strict=True):
            row = self._parser.row(
                value, origin.offset, origin.timestamp, origin.partition, topic_digest(origin.topic_id)
            )
            if isinstance(row, Rejection):
                failures.append(Failure(offset, "parse", FATAL, row.code, row.detail))
                continue
            # A failure names its record by the origin's offset alone: records that share one (of different topics, or
            # one written twice) go in rounds of their own, so that none is dead for another's fault.
            turn = seen[origin.offset] = seen.get(origin.offset, -1) + 1
            if turn == len(rounds):
                rounds.append([])
            rounds[turn].append(_Tried(offset, stage, row))
        for tried in rounds:
            failures += self._attempt(tried)
        return failures

    def away(self, shards: int) -> dict[str, list[str]]:
        """The stores that are not called just now, each with the stages (of `shards` shards) of the records that have to wait for it."""
        out: dict[str, list[str]] = {store: [] for store in self._breakers.away()}
        if persist.REDIS in out:
            out[persist.REDIS].append(persist.REDIS)
        for shard in range(shards) if out else ():
            store = persist.sql_store(self._sql.dsn_of(shard))
            if store in out:
                out[store].append(f"{_SQL}{shard}")
        return out

    def _attempt(self, tried: list[_Tried]) -> list[Failure]:
        """One round. A record of unknown stage has all done: each step may be repeated, none may be missed."""
        for_redis = [t.row for t in tried if not t.stage.startswith(_SQL)]
        applied = persist.apply(self._fast, self._breakers.of(persist.REDIS), for_redis)
        for_sql = [t.row for t in tried if t.stage.startswith(_SQL)]
        unknown = {t.row[OFFSET] for t in tried if t.stage != persist.REDIS}
        for_sql += [row for row in applied.rows if row[OFFSET] in unknown]
        failed = applied.failures + persist.persist(self._sql, self._breakers, for_sql)
        at = {t.row[OFFSET]: t.offset for t in tried}
        return [f._replace(offset=at[f.offset]) for f in failed]
