"""Base classes of our spouts and bolts, with the one ack rule: `process` returns and the tuple is acked, it raises and
the tuple is failed, for ever, until it works. Nothing else acks or fails.
"""

from __future__ import annotations

import gc
import logging
import sys
import time
import traceback
from typing import Any

from pystorm.component import LogStream
from streamparse import Bolt, Spout

from clicktide.errors import ClicktideError
from clicktide.redisstore.client import connect
from clicktide.settings import Settings, from_storm
from clicktide.watch import publish_health
from multilang import serializer

serializer.install()

# Rows make no reference cycles; the collector would walk all of a slice's again and again.
gc.set_threshold(100_000, 20, 100)

HEALTH_EVERY_S = 2.0


class _OnStorm:
    """What spouts and bolts share."""

    exit_on_exception = False  # one slice's failure is no reason to end a worker and all its slices
    settings: Settings

    def _setup_component(self, storm_conf: dict[str, Any], context: dict[str, Any]) -> None:
        super()._setup_component(storm_conf, context)  # type: ignore[misc]
        serializer.keep_stdout_clean(LogStream(logging.getLogger("pystorm.stdout")))
        logging.getLogger("clicktide").setLevel(logging.INFO)
        self.settings = from_storm(storm_conf)

    def raise_exception(self, exception: BaseException, tup: Any = None) -> None:  # noqa: ARG002
        """Report an error to Storm without the tuple: it holds what users did."""
        text = "".join(traceback.format_exception(exception))
        # What cannot be written would keep the tuple from being failed; file names may hold such characters.
        text = text.encode("utf-8", "backslashreplace").decode()
        self.send_message({"command": "error", "msg": text})  # type: ignore[attr-defined]
        self.send_message({"command": "sync"})  # type: ignore[attr-defined]


class TideBolt(_OnStorm, Bolt):  # type: ignore[misc]  # streamparse has no types
    """A bolt. `health` is what `/v1/status` shows of it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.counts: dict[str, int] = {}
        self._health_at = 0.0
        self._health_client: Any = None

    def count(self, name: str, n: int) -> None:
        if n:
            self.counts[name] = self.counts.get(name, 0) + n

    def breaker_states(self) -> dict[str, str]:
        """Stores whose breaker is not closed; a bolt with breakers overrides it."""
        return {}

    def alarms(self) -> dict[str, Any]:
        """What needs a person, by name; a bolt that alarms overrides it."""
        return {}

    def away(self) -> dict[str, list[str]] | None:
        """What a bolt that tries again knows of stores that are away (`Redrive.away`); None: it is none, and says nothing."""
        return None

    def process_tick(self, tup: Any) -> None:  # noqa: ARG002
        """Publish health; never fails for it."""
        now = time.time()
        if now - self._health_at < HEALTH_EVERY_S:
            return
        self._health_at = now
        if self._health_client is None:
            # A short limit: a store that hangs must not hold up slices for the sake of a report.
            self._health_client = connect(self.settings, timeout_s=0.25)
        health: dict[str, Any] = {
            "at": int(now * 1000),
            "breakers": self.breaker_states(),
            "alarms": self.alarms(),
            "counts": self.counts,
        }
        if (away := self.away()) is not None:
            health["away"] = away
        try:
            namespace = self.settings.text("redis.namespace")
            # Both topologies have a divert bolt, and each numbers its tasks from one.
            task = f"{self.topology_name}.{self.component_name}:{self.task_id}"
            publish_health(self._health_client, namespace, task, health)
        except ClicktideError as e:
            # Not again before the store may be back, for the same reason.
            self._health_at = now + 10.0
            print(f"health not published: {e}", file=sys.stderr)


class TideSpout(_OnStorm, Spout):  # type: ignore[misc]
    """A spout."""

    def task_index(self, context: dict[str, Any]) -> tuple[int, int]:
        """(index of this task among its component's, their number)."""
        own = context.get("componentid", self.component_name)
        tasks = sorted(int(t) for t, c in context["task->component"].items() if c == own)
        return tasks.index(int(context["taskid"])), len(tasks)
