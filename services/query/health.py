"""Health: lag, retries, dead letters and breakers, read at most once a second however many ask.

It promises to say what it does not know: parts whose store is away are None, and `degraded` names the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from clicktide import topics
from clicktide.errors import ClicktideError
from clicktide.log.port import Log, LogAdmin, LogConsumer
from clicktide.read import lag
from clicktide.read.lag import Done, Standing
from clicktide.read.plan import both
from clicktide.settings import Settings
from clicktide.shards import partition_of
from services.query.stores import Stores

_FRESH_MS = 1000
# After a pause in the questions one waits so long for a new reading, rather than say what was known before the pause.
_OLD_MS, _WAIT_S = 3000, 0.25
# A worker that has said nothing for so long says nothing of its breakers either.
_WORKER_SILENT_MS = 60_000


class Look(NamedTuple):
    """One reading. `done` and `workers` come from Redis, `standings` from the log; None where that one is away."""

    at: int
    done: Done | None
    breakers: dict[str, str] | None
    standings: dict[str, list[Standing]] | None
    alarms: dict[str, Any] | None = None


class Health:
    """`now_ms` is the wall clock (ms)."""

    def __init__(self, settings: Settings, stores: Stores, now_ms: Callable[[], int]) -> None:
        self._stores, self._now_ms = stores, now_ms
        self._namespace = settings.text("redis.namespace")
        self._group = settings.text("group")
        self.prefix = settings.text("topics.prefix")
        self._names = [self.prefix + t for t in (topics.EVENTS, *topics.RETRY, topics.DEAD)]
        self._timeout = settings.number("http.store_timeout_s")
        self._handles: tuple[LogAdmin, LogConsumer] | None = None
        self._look = Look(0, None, None, None)
        self._complete: dict[int, int] = {}
        self._earliest: int | None = None
        self._task: asyncio.Task[Look] | None = None

    def degraded(self) -> list[str]:
        """What is away as far as is known now: stores that failed here, breakers that are open in the pipeline."""
        self._refresh()
        return self._degraded()

    def known(self) -> Look:
        """The last reading, however old; asks for another one."""
        self._refresh()
        return self._look

    async def look(self, *, fresh: bool = False) -> Look:
        """A reading not older than a second; `fresh`: one that starts now."""
        if fresh and self._task is not None and not self._task.done():
            await asyncio.shield(self._task)
        task = self._refresh(_FRESH_MS if not fresh else 0)
        return self._look if task is None else await asyncio.shield(task)

    async def as_of(self, user_id: str | None = None) -> int | None:
        """Everything uploaded before (ms) is in the stores, as far as is known: of that user, or of all. None: nothing is
        known yet."""
        if not self.settled() and self._task is not None:
            await asyncio.wait({self._task}, timeout=_WAIT_S)
        return self.as_of_known(user_id)

    def settled(self) -> bool:
        """Whether the last reading is young enough for `as_of_known`; asks for another one where it is old."""
        return self._refresh() is None or self._now_ms() - self._look.at <= _OLD_MS

    def as_of_known(self, user_id: str | None = None) -> int | None:
        """`as_of` by the last reading."""
        if user_id is None:
            return self._earliest
        return self._complete.get(partition_of(user_id.encode(), len(self._complete) or 1)) or None

    def degraded_by(self, look: Look) -> list[str]:
        """As `degraded`, of that reading."""
        away = self._stores.away
        if not look.breakers:
            return away
        return sorted({name.rsplit("/", 1)[-1] for name in look.breakers}.union(away))

    async def close(self) -> None:
        """Ends a reading that is under way."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def _degraded(self) -> list[str]:
        return self.degraded_by(self._look)

    def _refresh(self, age_ms: int = _FRESH_MS) -> asyncio.Task[Look] | None:
        # A clock set back makes a reading look as if it came from the future: read again.
        if 0 <= self._now_ms() - self._look.at < age_ms:
            return None
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._read())
        return self._task

    async def _read(self) -> Look:
        at = self._now_ms()
        done: Done | None = None
        breakers: dict[str, str] | None = None
        alarms: dict[str, Any] | None = None
        standings: dict[str, list[Standing]] | None = None
        spouts = [n for n in self._names if not n.endswith("." + topics.DEAD)]
        read = both(lag.published(self._namespace, spouts), lag.workers(self._namespace))
        try:
            found = await self._stores.redis(read)
            done, said = found
            breakers = open_breakers(said, at)
            alarms = raised_alarms(said, at)
        except ClicktideError:
            pass
        try:
            standings = await self._stores.log(lambda log: self._standings(log, done or {}))
        except ClicktideError:
            pass
        await self._stores.revive()
        self._look = Look(at, done, breakers, standings, alarms)
        if standings is not None:
            self._complete = complete_by(standings, at, self.prefix, self._complete)
        # For every answer till the next reading.
        self._earliest = min(self._complete.values(), default=0) or None
        return self._look

    def _standings(self, log: Log, done: Done) -> dict[str, list[Standing]]:
        # In the stores' one log thread: the handles are made and used there only.
        if self._handles is None:
            self._handles = (log.admin(), log.consumer(self._group))
        try:
            return lag.standings(*self._handles, self._group, self._names, done, self._timeout / 2)
        except ClicktideError:
            for handle in self._handles:
                handle.close()
            self._handles = None
            raise


def complete_by(
    standings: Mapping[str, list[Standing]], at: int, prefix: str, before: Mapping[int, int]
) -> dict[int, int]:
    """By partition, the time (ms) before which all that was uploaded has been processed: that of the first record that
    waits, as an event or a retry, or of the reading `at` itself. `before` stands in where a record could not be read."""
    out: dict[int, int] = {}
    for topic, found in standings.items():
        if topic == prefix + topics.DEAD:
            continue
        for s in found:
            time = at
            if s.first is not None:
                time = min(at, lag.number_header(s.first, topics.ORIGIN_TIMESTAMP, s.first.timestamp))
            elif s.records:
                time = before.get(s.partition, 0)
            out[s.partition] = min(time, out.get(s.partition, time))
    return out


def open_breakers(said: dict[str, dict[str, Any]], now_ms: int) -> dict[str, str]:
    """Breakers that are not closed, as `component:task/store` -> state, of workers heard of in the last minute."""
    return {k: str(state) for k, state in _heard(said, "breakers", now_ms).items() if state != "closed"}


def raised_alarms(said: dict[str, dict[str, Any]], now_ms: int) -> dict[str, Any]:
    """What needs a person, as `component:task/alarm` -> its figures, of the same workers."""
    return _heard(said, "alarms", now_ms)


def _heard(said: dict[str, dict[str, Any]], what: str, now_ms: int) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for task, health in said.items():
        at = health.get("at")
        if isinstance(at, int | float) and now_ms - at > _WORKER_SILENT_MS:
            continue
        found = health.get(what)
        if isinstance(found, dict):
            out.update({f"{task}/{name}": value for name, value in found.items()})
    return out
