"""PersistBolt: writes rows and orders to the SQL shards, one commit a slice and DSN."""

from __future__ import annotations

import time
from typing import Any

from streamparse import Stream

from clicktide import persist
from clicktide.breaker import Breakers
from clicktide.packing import pack, unpack
from clicktide.slices import FAILED, FAILURES, Failures, Rows
from clicktide.sql import SqlStore
from multilang.component import TideBolt


class PersistBolt(TideBolt):
    """In: rows, which the unique key keeps single also while Redis is away. Out: failures."""

    outputs = [Stream(fields=FAILURES, name=FAILED)]

    def initialize(self, storm_conf: dict[str, Any], context: dict[str, Any]) -> None:  # noqa: ARG002
        self.store = SqlStore(self.settings)
        self.breakers = Breakers(
            time.monotonic, self.settings.integer("breaker.failures"), self.settings.number("breaker.probe_s")
        )

    def process(self, tup: Any) -> None:
        place, rows = unpack(tup.values[0], Rows)
        before = self.store.erased
        failures = persist.persist(self.store, self.breakers, rows)
        if erased := self.store.erased - before:
            self.count("erased", erased)
        self.count("stored", len(rows) - len(failures) - erased)
        if failures:
            self.emit([pack(Failures(place, failures))], stream=FAILED)

    def breaker_states(self) -> dict[str, str]:
        return self.breakers.states()
