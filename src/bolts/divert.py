"""DivertBolt: the one place that writes the retry topics and `dead`; acks only what the broker has acknowledged."""

from __future__ import annotations

import random
import time
from typing import Any

from clicktide.divert import Divert
from clicktide.log import open_log
from clicktide.packing import unpack
from clicktide.redisstore.client import connect
from clicktide.retry.alarms import RedisAlarms
from clicktide.retry.policy import from_settings
from clicktide.slices import Failures
from multilang.component import TideBolt


class DivertBolt(TideBolt):
    """In: failures of a slice's records. Out: nothing within the topology."""

    outputs: list[Any] = []

    def initialize(self, storm_conf: dict[str, Any], context: dict[str, Any]) -> None:  # noqa: ARG002
        log = open_log(self.settings)
        # A short limit: what asks Redis here must not hold up slices while it is away.
        client = connect(self.settings, timeout_s=0.5)
        alarms = RedisAlarms(client, self.settings.text("redis.namespace"), _now_ms)
        self.divert = Divert(
            log.consumer(self.settings.text("group") + ".divert"),
            log.producer(),
            from_settings(self.settings),
            self.settings.text("topics.prefix"),
            _now_ms,
            random.uniform,
            alarms=alarms,
        )

    def process(self, tup: Any) -> None:
        counts = self.divert.divert(*unpack(tup.values[0], Failures))
        for topic, n in counts.items():
            self.count(topic, n)

    def alarms(self) -> dict[str, Any]:
        return {f"dead.{stage}": figures for stage, figures in self.divert.stopped().items()}


def _now_ms() -> int:
    return int(time.time() * 1000)
