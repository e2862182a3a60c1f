"""Suspects' notes in Redis: what one life of a spout task leaves to the next, and whose turn it is to try one.

Promises: never raises for a Redis that is away, and waits for it a quarter of a second at most. Only places are kept, nothing
of what is in the records.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import redis

from clicktide import keys
from clicktide.errors import ClicktideError
from clicktide.log.port import TopicPartition
from clicktide.redisstore.client import connect, errors_named
from clicktide.settings import Settings
from clicktide.suspects import Note, Noted

log = logging.getLogger(__name__)

_TIMEOUT_S = 0.25
# Longer than a spout is ever silent that is not dead: it asks again each second. Its next life takes the turn over at once.
_TURN_MS = 30_000

# A turn is kept or had only by whoever asks in the same step: two tasks must not both have it.
_TAKE = """local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1"""
_LEAVE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class RedisNotes:
    """`suspects.Notes` of one consumer group."""

    def __init__(self, client: redis.Redis, namespace: str, group: str) -> None:
        self._client, self._namespace, self._group = client, namespace, group

    def read(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Note]:
        found: dict[TopicPartition, Note] = {}
        try:
            with errors_named():
                for topic in {p.topic for p in partitions}:
                    kept: Any = self._client.hgetall(self._key(topic))
                    for p in partitions:
                        said = kept.get(b"%d" % p.partition) if p.topic == topic else None
                        if said is not None and (note := _read(said)) is not None:
                            found[p] = note
        except ClicktideError as e:
            log.warning("what earlier lives knew is not to be had: %s", e)
            return {}
        return found

    def write(self, notes: Mapping[TopicPartition, Note]) -> None:
        by_topic: dict[str, dict[Any, Any]] = {}
        for p, note in notes.items():
            by_topic.setdefault(p.topic, {})[str(p.partition)] = json.dumps(asdict(note))
        try:
            with errors_named():
                for topic, mapping in by_topic.items():
                    self._client.hset(self._key(topic), mapping=mapping)
        except ClicktideError as e:
            log.warning("a note could not be written: %s", e)

    def take_turn(self, who: str) -> bool:
        try:
            with errors_named():
                return bool(self._client.eval(_TAKE, 1, keys.trial(self._namespace), who, str(_TURN_MS)))
        except ClicktideError as e:
            log.warning("nobody can have the turn: %s", e)
            return False

    def leave_turn(self, who: str) -> None:
        try:
            with errors_named():
                self._client.eval(_LEAVE, 1, keys.trial(self._namespace), who)
        except ClicktideError as e:
            log.debug("the turn ends by itself: %s", e)

    def _key(self, topic: str) -> str:
        return keys.suspects(self._namespace, self._group, topic)


def redis_notes(settings: Settings) -> RedisNotes:
    """The notes of these settings' namespace and group."""
    client = connect(settings, timeout_s=_TIMEOUT_S)
    return RedisNotes(client, settings.text("redis.namespace"), settings.text("group"))


def _read(said: bytes) -> Note | None:
    """What cannot be read counts as absent: another version may have written it."""
    try:
        found = json.loads(said)
        ranges = tuple(Noted(**r) for r in found.pop("ranges"))
        return Note(**found, ranges=ranges)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
