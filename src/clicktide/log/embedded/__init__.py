"""The embedded log: all topics in one SQLite file (WAL), shared by any number of processes, no server.

Promises what the port says, with kill -9 of any process at any moment: what `send` answered is on the disk.
docs/decisions/0003-the-log.md has the reasons and the figures.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path

from clicktide.errors import SettingError
from clicktide.log.embedded.admin import EmbeddedAdmin
from clicktide.log.embedded.consumer import EmbeddedConsumer
from clicktide.log.embedded.file import LogFile
from clicktide.log.embedded.retention import Retention
from clicktide.log.embedded.writer import EmbeddedProducer, Writer
from clicktide.settings import Settings

__all__ = ["EmbeddedLog"]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _new_id() -> str:
    return secrets.token_hex(16)


class EmbeddedLog:
    """`Log` on one SQLite file. `now_ms` stamps records, `new_id` names topics (32 hex digits)."""

    def __init__(
        self,
        path: Path,
        retention_bytes: int,
        now_ms: Callable[[], int] = _now_ms,
        new_id: Callable[[], str] = _new_id,
    ) -> None:
        self._path = path
        self._now_ms = now_ms
        self._new_id = new_id
        # One for all producers of this log: their threads share its transactions.
        self._writer = Writer(LogFile(path), Retention(retention_bytes, now_ms), now_ms)

    @classmethod
    def of(cls, settings: Settings) -> EmbeddedLog:
        """The log of `log.path` and `log.retention_mb`; raises `SettingError` without a path."""
        path = settings.text("log.path")
        if not path:
            raise SettingError("setting log.path: expected the path of the embedded log's file, got nothing")
        return cls(Path(path), settings.integer("log.retention_mb") << 20)

    def consumer(self, group: str) -> EmbeddedConsumer:
        return EmbeddedConsumer(LogFile(self._path), group, self._now_ms)

    def producer(self) -> EmbeddedProducer:
        return EmbeddedProducer(self._writer)

    def admin(self) -> EmbeddedAdmin:
        return EmbeddedAdmin(LogFile(self._path), self._new_id)
