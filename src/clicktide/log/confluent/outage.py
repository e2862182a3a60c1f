"""Finds out whether the brokers are away, without ever waiting for them.

librdkafka says when all brokers are down, and nothing when they are back. So from its word on, a question goes to the
cluster in the background: until one is answered, `check` raises. And then the client's own handle is replaced, for it may have lost its
brokers for good (docs/decisions/0003-the-log.md).
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from confluent_kafka import KafkaError

from clicktide.errors import LogError, LogUnavailable
from clicktide.log.confluent.client import ALL_BROKERS_DOWN, NO_ACCESS, heard, told


class Outage:
    """Whether the cluster is known to be away. `heard` may be called from any thread.

    `ask` asks the cluster something small: it returns within seconds when it is there, and raises `LogError` when not.
    """

    def __init__(self, ask: Callable[[], object]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._error: LogError | None = None
        self._ended = False
        self._asking: threading.Thread | None = None

    def heard(self, error: KafkaError) -> None:
        """librdkafka's word: an error that is not one call's."""
        heard(error)
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
            if self._asking is None:
                self._asking = threading.Thread(target=self._run, name="kafka-outage", daemon=True)
                self._asking.start()
            raise self._error

    def _run(self) -> None:
        try:
            self._ask()
            answered = True
        except LogError:
            answered = False
        with self._lock:
            self._asking = None
            if answered:
                self._error = None
                self._ended = True

    def ended(self) -> bool:
        """Whether an outage has ended since this was last asked."""
        with self._lock:
            ended, self._ended = self._ended, False
            return ended

    def close(self) -> None:
        """Wait for the question under way."""
        with self._lock:
            asking = self._asking
        if asking is not None:
            asking.join()
