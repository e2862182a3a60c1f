"""DivertBolt: the one place that writes the retry topics and `dead`; acks only what the broker has acknowledged."""

from __future__ import annotations

import random
import time
from typing import Any

from clicktide.divert import Divert
from clicktide.log import open_log
from clicktide.retry.policy import from_settings
from clicktide.slices import Failure, Place
from multilang.component import TideBolt


class DivertBolt(TideBolt):
    """In: failures of a slice's records. Out: nothing within the topology."""

    outputs: list[Any] = []

    def initialize(self, storm_conf: dict[str, Any], context: dict[str, Any]) -> None:  # noqa: ARG002
        log = open_log(self.settings)
        self.divert = Divert(
            log.consumer(self.settings.text("group") + ".divert"),
            log.producer(),
            from_settings(self.settings),
            self.settings.text("topics.prefix"),
            lambda: int(time.time() * 1000),
            random.uniform,
        )

    def process(self, tup: Any) -> None:
        place, failures = tup.values
        counts = self.divert.divert(Place(*place), [Failure(*f) for f in failures])
        for topic, n in counts.items():
            self.count(topic, n)
