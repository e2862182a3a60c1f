"""Redrive: tries just the failed stage of a diverted record again.

Promises: what succeeded before is not done again, and a record is either done or named as failed again, with its
own place in the log, so that its claim is still its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from clicktide import persist
from clicktide.breaker import Breakers
from clicktide.parse import Parser, Rejection, topic_digest
from clicktide.persist import Fast, Sql
from clicktide.retry.envelope import Origin
from clicktide.retry.policy import FATAL
from clicktide.row import OFFSET, Row
from clicktide.slices import Failure


class Redrive:
    """Re-attempts slices of a retry topic."""

    def __init__(self, parser: Parser, fast: Fast, sql: Sql, breakers: Breakers) -> None:
        self._parser, self._fast, self._sql, self._breakers = parser, fast, sql, breakers

    def attempt(
        self,
        offsets: Sequence[int],
        values: Sequence[str | None],
        stages: Sequence[str],
        origins: Sequence[Origin],
    ) -> list[Failure]:
        """Try each record's stage; `offsets` are those in the retry topic, and so are the failures'."""
        failures: list[Failure] = []
        for_redis: list[Row] = []
        for_sql: list[Row] = []
        at: dict[int, int] = {}
        for offset, value, stage, origin in zip(offsets, values, stages, origins, strict=True):
            row = self._parser.row(
                value, origin.offset, origin.timestamp, origin.partition, topic_digest(origin.topic_id)
            )
            if isinstance(row, Rejection):
                failures.append(Failure(offset, "parse", FATAL, row.code, row.detail))
                continue
            at[id(row)] = offset
            (for_sql if stage.startswith("mysql.") else for_redis).append(row)
        failures += self._redis(for_redis, at)
        failures += self._moved(for_sql, persist.persist(self._sql, self._breakers, for_sql), at)
        return failures

    def _redis(self, rows: list[Row], at: dict[int, int]) -> list[Failure]:
        failed = persist.apply(self._fast, self._breakers.of(persist.REDIS), rows).failures
        return self._moved(rows, failed, at)

    @staticmethod
    def _moved(rows: list[Row], failures: list[Failure], at: dict[int, int]) -> list[Failure]:
        """Failures name the record's origin; from here on its place in the retry topic counts.

        Two records with one origin offset (of different partitions, or one written twice) all fail again: trying
        once too often is harmless.
        """
        by_origin = {f.offset: f for f in failures}
        return [
            by_origin[row[OFFSET]]._replace(offset=at[id(row)]) for row in rows if row[OFFSET] in by_origin
        ]
