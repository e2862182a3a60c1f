"""The watch: a thread that keeps asking whether the stores are there, so that no spout ever waits for one."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

import redis

from clicktide import holds, keys
from clicktide.errors import ClicktideError, StoreUnavailable
from clicktide.persist import REDIS
from clicktide.redisstore.client import connect, errors_named, run_id
from clicktide.redisstore.cluster import Cluster
from clicktide.retry import alarms
from clicktide.seen import Seen
from clicktide.settings import Settings

log = logging.getLogger(__name__)

Positions = Mapping[str, Mapping[str, int]]


class StoreWatch:
    """Knows Redis's run id, and whether any store answers at all; publishes a spout's positions for whoever reads lag.

    `clock` is the source's; `pings` ask the SQL servers, one each, and raise `StoreUnavailable`. With `wall_ms` it also listens to
    what bolts that try again say of the stores (`holds`).
    """

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], float],
        pings: Callable[[], list[Callable[[], None]]],
        every_s: float = 0.5,
        wall_ms: Callable[[], int] | None = None,
    ) -> None:
        self._client = connect(settings, timeout_s=2.0)
        self._namespace = settings.text("redis.namespace")
        self._clock, self._pings, self._every_s, self._wall_ms = clock, pings, every_s, wall_ms
        self._seen = Seen(None, clock())
        self._heard: dict[bytes, bytes] = {}
        self._stop = threading.Event()
        # Asked when they are published, from this thread: twice a second, not at every `next` of the spout.
        self.positions: Callable[[], Positions] = dict
        self._thread = threading.Thread(target=self._run, name="store-watch", daemon=True)

    def start(self) -> StoreWatch:
        self._look()
        self._thread.start()
        return self

    def stop(self) -> None:
        self._stop.set()

    def seen(self) -> Seen:
        return self._seen

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self._look()

    def _look(self) -> None:
        # Before the question: what Redis acknowledged up to here, it has if its run id is still the same.
        asked_at = self._clock()
        try:
            found = run_id(self._client)
            stopped = bool(alarms.stopped(self._client, self._namespace))
            away = self._said()
        except ClicktideError as e:
            if self._seen.run_id is not None:
                log.warning("Redis does not answer: %s", e)
            all_away = self._sql_away()
            if all_away and not self._seen.all_away:
                log.warning("no store answers: nothing new is begun until one does")
            self._seen = Seen(None, asked_at, all_away=all_away, away=self._remembered())
            return
        if self._wall_ms is not None and self._seen.run_id not in (None, found):
            # It was away between two looks; as anybody's return, that is told by the next one.
            away[REDIS] = REDIS
        if away != self._seen.away:
            names = ", ".join(sorted(set(away.values())))
            log.warning(
                "%s",
                f"held until it is back: what waits for {names}" if names else "nothing is held any more",
            )
        self._seen = Seen(found, asked_at, stopped=stopped, away=away)
        self._publish()

    def _said(self) -> dict[str, str]:
        if self._wall_ms is None:
            return {}
        with errors_named():
            said: Any = self._client.hgetall(keys.workers(self._namespace))
        self._heard = said
        return holds.agreed(said, self._wall_ms())

    def _remembered(self) -> dict[str, str]:
        """With Redis away: that, and of the other stores what was said within the last minute. (A cluster does not answer as a whole
        when one of its nodes is away: the others' shards go on.)"""
        if self._wall_ms is None:
            return {}
        known = holds.agreed(self._heard, self._wall_ms())
        return known if isinstance(self._client, Cluster) else {**known, REDIS: REDIS}

    def _sql_away(self) -> bool:
        try:
            for ping in self._pings():
                try:
                    ping()
                except StoreUnavailable:
                    continue
                return False
        except ClicktideError as e:
            log.warning("%s", e)
        return True

    def _publish(self) -> None:
        by_topic: dict[str, dict[Any, Any]] = {}
        for where, position in self.positions().items():
            topic, partition = where.rsplit(":", 1)
            by_topic.setdefault(topic, {})[partition] = json.dumps(position)
        try:
            with errors_named():
                for topic, mapping in by_topic.items():
                    self._client.hset(keys.spouts(self._namespace, topic), mapping=mapping)
        except ClicktideError as e:
            log.debug("positions not published: %s", e)


def publish_health(client: redis.Redis, namespace: str, task: str, health: Mapping[str, object]) -> None:
    """What a bolt says of itself, for `/v1/status`. Raises `StoreUnavailable`."""
    with errors_named():
        client.hset(keys.workers(namespace), task, json.dumps(health))
