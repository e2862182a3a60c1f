"""RetryBolt: tries just the failed stage of each record again."""

from __future__ import annotations

import time
from typing import Any

from streamparse import Stream

from clicktide.breaker import Breakers
from clicktide.packing import pack, unpack
from clicktide.parse import Parser
from clicktide.redisstore.store import RedisStore
from clicktide.redrive import Redrive
from clicktide.slices import FAILED, FAILURES, Failures, Retries
from clicktide.sql import SqlStore
from clicktide.tombstones import tombstones_of
from multilang.component import TideBolt


class RetryBolt(TideBolt):
    """In: a slice of a retry topic. Out: what failed again."""

    outputs = [Stream(fields=FAILURES, name=FAILED)]

    def initialize(self, storm_conf: dict[str, Any], context: dict[str, Any]) -> None:  # noqa: ARG002
        s = self.settings
        self.breakers = Breakers(time.monotonic, s.integer("breaker.failures"), s.number("breaker.probe_s"))
        self.shards = s.integer("shards.count")
        self.redrive = Redrive(
            Parser(s), RedisStore(s, tombstones=tombstones_of(s)), SqlStore(s), self.breakers
        )

    def process(self, tup: Any) -> None:
        place, offsets, values, stages, origins = unpack(tup.values[0], Retries)
        failures = self.redrive.attempt(offsets, values, stages, origins)
        self.count("recovered", len(offsets) - len(failures))
        if failures:
            self.emit([pack(Failures(place, failures))], stream=FAILED)

    def breaker_states(self) -> dict[str, str]:
        return self.breakers.states()

    def away(self) -> dict[str, list[str]]:
        return self.redrive.away(self.shards)
