"""DedupeBolt: claims each row's event id; drops real duplicates."""

from __future__ import annotations

import time
from typing import Any

from clicktide import persist
from clicktide.breaker import Breaker
from clicktide.redisstore.store import RedisStore
from clicktide.slices import CLAIMED, FAILED, FAILURES, ROWS, UNCLAIMED
from multilang.component import TideBolt
from streamparse import Stream


class DedupeBolt(TideBolt):
    """In: rows. Out: claimed rows for both stores; unclaimed ones for SQL alone while Redis is away; failures."""

    outputs = [
        Stream(fields=ROWS, name=CLAIMED),
        Stream(fields=ROWS, name=UNCLAIMED),
        Stream(fields=FAILURES, name=FAILED),
    ]

    def initialize(self, storm_conf: dict[str, Any], context: dict[str, Any]) -> None:  # noqa: ARG002
        self.store = RedisStore(self.settings)
        self.breaker = Breaker(
            time.monotonic, self.settings.integer("breaker.failures"), self.settings.number("breaker.probe_s")
        )

    def process(self, tup: Any) -> None:
        place, rows = tup.values
        done = persist.claim(self.store, self.breaker, rows)
        self.count("duplicates", done.duplicates)
        if done.failures:
            self.emit([place, done.failures], stream=FAILED)
        if done.unclaimed:
            self.emit([place, done.unclaimed], stream=UNCLAIMED)
        if done.claimed:
            self.emit([place, done.claimed], stream=CLAIMED)

    def breaker_states(self) -> dict[str, str]:
        return {persist.REDIS: self.breaker.state} if self.breaker.state != "closed" else {}
