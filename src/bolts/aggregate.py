"""AggregateBolt: brings the effects of claimed rows into Redis, each once."""

from __future__ import annotations

import time
from typing import Any

from clicktide import persist
from clicktide.breaker import Breaker
from clicktide.redisstore.store import RedisStore
from clicktide.slices import FAILED, FAILURES
from multilang.component import TideBolt
from streamparse import Stream


class AggregateBolt(TideBolt):
    """In: claimed rows. Out: failures."""

    outputs = [Stream(fields=FAILURES, name=FAILED)]

    def initialize(self, storm_conf: dict[str, Any], context: dict[str, Any]) -> None:  # noqa: ARG002
        self.store = RedisStore(self.settings)
        self.breaker = Breaker(
            time.monotonic, self.settings.integer("breaker.failures"), self.settings.number("breaker.probe_s")
        )

    def process(self, tup: Any) -> None:
        place, rows = tup.values
        failures = persist.apply(self.store, self.breaker, rows)
        self.count("applied", len(rows) - len(failures))
        if failures:
            self.emit([place, failures], stream=FAILED)

    def breaker_states(self) -> dict[str, str]:
        return {persist.REDIS: self.breaker.state} if self.breaker.state != "closed" else {}
