"""The desk: the log, Redis and the settings of an environment, opened for one command and closed after it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from bench.progress import Meter
from cli.context import data_dir, settings_for
from clicktide import keys
from clicktide.errors import ClicktideError, SettingError
from clicktide.log import open_log
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


class Desk:
    """One command's view. `run` is unique and goes to the audit trail and `tide-replay-id`."""

    def __init__(self, settings: Settings, log: Log, audit: Path) -> None:
        self.settings, self.log = settings, log
        self.prefix = settings.text("topics.prefix")
        self.namespace = settings.text("redis.namespace")
        self.run = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"
        self.audit = Audit(audit, self.run, now_ms)
        self.letters = Letters(log.consumer("desk"), self.prefix)
        self._redis: redis.Redis | None = None
        self._locked_at = 0

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
                raise SettingError("another desk is at work on the dead letters; try again in a minute")
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


@contextmanager
def desk_of(env: str, data_dir_given: Path | None, audit: Path | None = None) -> Iterator[Desk]:
    """The desk of an environment. Raises `SettingError` when there is no log."""
    settings = settings_for(env, data_dir_given)
    if settings.text("log.adapter") == "embedded" and not Path(settings.text("log.path")).exists():
        raise SettingError(f"there is no log at {settings.text('log.path')}; ./tide demo makes one")
    desk = Desk(settings, open_log(settings), audit or data_dir(data_dir_given) / "dead-audit.jsonl")
    try:
        yield desk
    finally:
        desk.letters.close()


@contextmanager
def progress(what: str, alive: Callable[[], None] = lambda: None) -> Iterator[Progress]:
    """Shows how far a scan is, on standard error."""
    with Meter(what, 1.0) as meter:

        def show(done: int, total: int) -> None:
            alive()
            meter.show(done / total if total else 1.0, f"{done:,} of {total:,} records")

        yield show


def plain(value: Any) -> str:
    """A time in ms as people read it, UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(int(value) / 1000)) if value else "-"
