"""The desk: the log, Redis and the settings of an environment, opened for one command or request and closed after it.

Knows nothing of a terminal: the command line (`retry.opening`) and the query service (`services.desk`) use the same.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import redis

from clicktide import keys
from clicktide.errors import ClicktideError, SettingError
from clicktide.log.port import Log
from clicktide.redisstore.client import connect, errors_named
from clicktide.retry import policy, policy_file
from clicktide.retry.letters import Letters, Progress
from clicktide.settings import Settings
from retry.audit import Audit

POLICY = Path(__file__).resolve().parent / "policy.toml"
_LOCK_MS = 60_000


def now_ms() -> int:
    """The wall clock."""
    return time.time_ns() // 1_000_000


class DeskBusy(SettingError):
    """Another desk changes the dead letters now."""

    retriable = True
    code = "busy"


# What a scan is for, and what keeps the work's lock meanwhile -> shows how far it is.
Show = Callable[[str, Callable[[], None]], AbstractContextManager[Progress]]
READING = "reading the dead letters"


def quiet(_what: str, alive: Callable[[], None]) -> AbstractContextManager[Progress]:
    """Shows nothing."""
    return nullcontext(lambda _done, _total: alive())


class Desk:
    """One command's view. `run` is unique and goes to the audit trail and `tide-replay-id`; `by` is who acts (None: the
    system's user)."""

    def __init__(
        self, settings: Settings, log: Log, audit: Path, by: str | None = None, show: Show = quiet
    ) -> None:
        self.settings, self.log = settings, log
        self.prefix = settings.text("topics.prefix")
        self.namespace = settings.text("redis.namespace")
        self.run = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"
        self.audit = Audit(audit, self.run, now_ms, by)
        self._show = show
        self.letters = Letters(log.consumer("desk"), self.prefix)
        self._redis: redis.Redis | None = None
        self._locked_at = 0

    def progress(
        self, what: str, alive: Callable[[], None] = lambda: None
    ) -> AbstractContextManager[Progress]:
        """Shows how far a scan is, where there is somebody to see it."""
        return self._show(what, alive)

    def close(self) -> None:
        self.letters.close()
        if self._redis is not None:
            self._redis.close()

    @property
    def redis(self) -> redis.Redis:
        if self._redis is None:
            self._redis = connect(self.settings)
        return self._redis

    @property
    def policy(self) -> policy.Policy:
        """As the policy file and the settings given say."""
        given = {k.removeprefix("tide."): v for k, v in self.settings.options().items()}
        return policy.from_settings(Settings({**policy_file.read(POLICY), **given}))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Refuses while another desk changes `dead`: two that rewrite it at once could bring back what one removed."""
        key = f"{keys.dead_stopped(self.namespace)}:desk"
        with errors_named():
            if not self.redis.set(key, self.run, nx=True, px=_LOCK_MS):
                raise DeskBusy("another desk is at work on the dead letters; try again in a minute")
        self._locked_at = now_ms()
        try:
            yield
        finally:
            try:
                with errors_named():
                    if self.redis.get(key) == self.run.encode():
                        self.redis.delete(key)
            except ClicktideError:
                pass  # it expires

    def still_alone(self) -> None:
        """Keeps the lock of `alone` while the work goes on."""
        if now_ms() - self._locked_at > _LOCK_MS / 4:
            self._locked_at = now_ms()
            with errors_named():
                self.redis.pexpire(f"{keys.dead_stopped(self.namespace)}:desk", _LOCK_MS)


def plain(value: Any) -> str:
    """A time in ms as people read it, UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(int(value) / 1000)) if value else "-"
