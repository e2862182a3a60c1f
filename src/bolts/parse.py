"""ParseBolt: records to rows; refused records to the divert bolt."""

from __future__ import annotations

from typing import Any

from streamparse import Stream

from clicktide.packing import pack, unpack
from clicktide.parse import Parser
from clicktide.retry.policy import FATAL
from clicktide.slices import FAILED, FAILURES, ROWS, Failure, Failures, Records, Rows
from multilang.component import TideBolt


class ParseBolt(TideBolt):
    """In: a slice's records. Out: its rows, and the failures of those that are none."""

    outputs = [Stream(fields=ROWS), Stream(fields=FAILURES, name=FAILED)]

    def initialize(self, storm_conf: dict[str, Any], context: dict[str, Any]) -> None:  # noqa: ARG002
        self.parser = Parser(self.settings)

    def process(self, tup: Any) -> None:
        place, offsets, timestamps, values = unpack(tup.values[0], Records)
        rows, refused = self.parser.slice(values, offsets, timestamps, place.partition, place.digest)
        self.count("rows", len(rows))
        self.count("refused", len(refused))
        if refused:
            failures = [Failure(r.offset, "parse", FATAL, r.code, r.detail) for r in refused]
            self.emit([pack(Failures(place, failures))], stream=FAILED)
        if rows:
            self.emit([pack(Rows(place, rows))])
