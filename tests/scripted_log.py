"""A log in memory that fails on script; stands at the log's port, for services' tests. No pytest in here."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from clicktide.errors import LogUnavailable
from clicktide.log.port import Outgoing, Placed, TopicInfo


class ScriptedLog:
    """Keeps what is sent in `sent`, call by call. `fail` errors are raised by the next sends, `away` by all until it is
    None; `gate` holds every send back, beyond its own timeout, until it is set."""

    def __init__(self) -> None:
        self.sent: list[list[Outgoing]] = []
        self.fail: list[Exception] = []
        self.away: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def records(self) -> list[Outgoing]:
        return [record for call in self.sent for record in call]

    def producer(self) -> _Producer:
        return _Producer(self)

    def admin(self) -> _Admin:
        return _Admin(self)

    def consumer(self, group: str) -> None:
        raise LogUnavailable("nothing can be read of a scripted log")


class _Producer:
    def __init__(self, log: ScriptedLog) -> None:
        self._log = log

    def send(self, records: Sequence[Outgoing], timeout_s: float) -> list[Placed]:
        self._log.entered.set()
        self._log.gate.wait(30)
        if self._log.away is not None:
            raise self._log.away
        if self._log.fail:
            raise self._log.fail.pop(0)
        self._log.sent.append(list(records))
        return [Placed(0, i) for i, _ in enumerate(records)]

    def close(self) -> None:
        pass


class _Admin:
    def __init__(self, log: ScriptedLog) -> None:
        self._log = log

    def topics(self) -> dict[str, TopicInfo]:
        if self._log.away is not None:
            raise self._log.away
        return {"tide.events": TopicInfo("tide.events", "0" * 32, 8)}

    def close(self) -> None:
        pass
