"""Alarms: how divert bolts, spouts and operators hear of each other, through a few keys in Redis.

Promises: never raises in a bolt or spout for a Redis that is away; then nothing is allowed, and what is stopped stays so.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import redis

from clicktide import keys
from clicktide.errors import ClicktideError
from clicktide.redisstore.client import errors_named

log = logging.getLogger(__name__)

ALL = "all"
STAGES = ("parse", "redis", "mysql", "poison")
# Longer than a slice's longest backoff: whoever is stopped says so again at every refusal.
_TOLD_MS = 60_000
_ASK_EVERY_MS = 1000


class RedisAlarms:
    """`divert.Alarms` of one divert task. `now_ms` is the wall clock; asks at most once a second."""

    def __init__(self, client: redis.Redis, namespace: str, now_ms: Callable[[], int]) -> None:
        self._client, self._namespace, self._now_ms = client, namespace, now_ms
        self._allowed: dict[str, int] = {}
        self._asked_at = self._logged_at = 0

    def allowed(self, stage: str) -> bool:
        now = self._now_ms()
        if not 0 <= now - self._asked_at < _ASK_EVERY_MS:
            self._asked_at = now
            try:
                self._allowed = allowances(self._client, self._namespace)
            except ClicktideError as e:
                self._allowed = {}
                log.warning("cannot ask for allowances: %s", e)
        return any(self._allowed.get(name, 0) > now for name in (stage, ALL))

    def raised(self, stopped: dict[str, dict[str, float]]) -> None:
        now = self._now_ms()
        if stopped and not 0 <= now - self._logged_at < _ASK_EVERY_MS:
            self._logged_at = now
            for stage, figures in stopped.items():
                log.error(
                    "ALARM: stage %s is stopped, %d dead letters in its window; see docs/operations/dead-letters.md",
                    stage,
                    figures["dead"],
                )
        try:
            with errors_named():
                if stopped:
                    self._client.set(keys.dead_stopped(self._namespace), json.dumps(stopped), px=_TOLD_MS)
                else:
                    self._client.delete(keys.dead_stopped(self._namespace))
        except ClicktideError as e:
            log.warning("the alarm could not be published: %s", e)


def allow(client: redis.Redis, namespace: str, stage: str, until_ms: int) -> None:
    """Let the stage's dead letters through until then (ms); a time that is over takes it back. Raises `StoreUnavailable`."""
    with errors_named():
        client.hset(keys.dead_allowed(namespace), stage, str(until_ms))
        # What spouts take as "wait" must not outlive the reason.
        client.delete(keys.dead_stopped(namespace))


def allowances(client: redis.Redis, namespace: str) -> dict[str, int]:
    """Until when (ms) each stage is allowed, past times included. Raises `StoreUnavailable`."""
    with errors_named():
        found: Any = client.hgetall(keys.dead_allowed(namespace))
    return {name.decode(): int(until) for name, until in found.items() if until.isdigit()}


def stopped(client: redis.Redis, namespace: str) -> dict[str, Any]:
    """The stages that were stopped within the last minute. Raises `StoreUnavailable`."""
    with errors_named():
        found: Any = client.get(keys.dead_stopped(namespace))
    try:
        said = json.loads(found) if found else {}
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
