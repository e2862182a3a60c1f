"""Finds out whether the brokers are away, without ever waiting for them.

librdkafka says when all brokers are down, and nothing when they are back. So from its word on, a probe runs in the
background: until one is answered, `check` raises.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError

from clicktide.errors import LogError, LogUnavailable
from clicktide.log.confluent.admin import ConfluentAdmin
from clicktide.log.confluent.client import ALL_BROKERS_DOWN, NO_ACCESS, told


class Outage:
    """Whether the cluster is known to be away. `heard` may be called from any thread."""

    def __init__(self, admin: ConfluentAdmin) -> None:
        self._admin = admin
        self._lock = threading.Lock()
        self._error: LogError | None = None
        self._probe: Future[Any] | None = None

    def heard(self, error: KafkaError) -> None:
        """librdkafka's word: an error that is not one call's."""
        if error.code() == ALL_BROKERS_DOWN:
            with self._lock:
                self._error = LogUnavailable(f"Kafka: all brokers are away ({error.str()})")
        elif error.code() in NO_ACCESS:
            with self._lock:
                self._error = told(error, "connect")

    def check(self) -> None:
        """Raise when the cluster is away; ask it again in the background."""
        with self._lock:
            if self._error is None:
                return
            if self._probe is not None and self._probe.done():
                answered = self._probe.exception() is None
                self._probe = None
                if answered:
                    self._error = None
                    return
            if self._probe is None:
                self._probe = self._admin.probe()
            raise self._error
