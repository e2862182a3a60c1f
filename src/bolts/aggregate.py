"""AggregateBolt: claims each event's id and brings its effects into Redis, in one step; drops real duplicates, and
what comes of erased users."""

from __future__ import annotations

import time
from typing import Any

from streamparse import Stream

from clicktide import persist
from clicktide.breaker import CLOSED, Breaker
from clicktide.packing import pack, unpack
from clicktide.redisstore.store import RedisStore
from clicktide.slices import FAILED, FAILURES, ROWS, Failures, Rows
from clicktide.tombstones import tombstones_of
from multilang.component import TideBolt


class AggregateBolt(TideBolt):
    """In: rows. Out: those that are no duplicates, for SQL; failures."""

    outputs = [Stream(fields=ROWS), Stream(fields=FAILURES, name=FAILED)]

    def initialize(self, storm_conf: dict[str, Any], context: dict[str, Any]) -> None:  # noqa: ARG002
        s = self.settings
        self.store = RedisStore(s, tombstones=tombstones_of(s))
        self.breaker = Breaker(time.monotonic, s.integer("breaker.failures"), s.number("breaker.probe_s"))

    def process(self, tup: Any) -> None:
        place, rows = unpack(tup.values[0], Rows)
        done = persist.apply(self.store, self.breaker, rows)
        self.count("rows", len(done.rows))
        self.count("duplicates", done.duplicates)
        if done.erased:
            self.count("erased", done.erased)
        if done.failures:
            self.emit([pack(Failures(place, done.failures))], stream=FAILED)
        if done.rows:
            # As they came, when all go on: nearly always, and packing them again is not for nothing.
            whole = len(done.rows) == len(rows)
            self.emit([tup.values[0] if whole else pack(Rows(place, done.rows))])

    def breaker_states(self) -> dict[str, str]:
        state = self.breaker.reported()
        return {} if state == CLOSED else {persist.REDIS: state}
