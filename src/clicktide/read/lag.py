"""Lag: how far the topologies are behind the log, what waits in the retry topics, and how much is dead.

The spouts publish what they have done; the group's committed offsets follow some seconds later and stand in where
nothing is published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from clicktide import keys, topics
from clicktide.errors import OffsetOutOfRange
from clicktide.log.port import LogAdmin, LogConsumer, Record, TopicPartition
from clicktide.read.plan import Read

Done = dict[TopicPartition, int]


class Standing(NamedTuple):
    """One partition: what is kept, what is done, and the first record that waits (None: nothing waits, or it cannot
    be read)."""

    partition: int
    earliest: int
    done: int
    end: int
    first: Record | None

    @property
    def records(self) -> int:
        """How many records wait."""
        return max(0, self.end - self.done)


def published(namespace: str, names: Sequence[str]) -> Read[Done]:
    """The next offsets to be done, as the spouts of these topics publish them."""

    def fold(replies: list[Any]) -> Done:
        out: Done = {}
        for topic, reply in zip(names, replies, strict=True):
            for partition, text in _pairs(reply):
                try:
                    out[TopicPartition(topic, int(partition))] = int(orjson.loads(text)["done"])
                except (ValueError, KeyError, TypeError):
                    continue
        return out

    return Read([("HGETALL", keys.spouts(namespace, topic)) for topic in names], fold)


def workers(namespace: str) -> Read[dict[str, dict[str, Any]]]:
    """What each bolt says of its health, by `component:task`."""

    def fold(replies: list[Any]) -> dict[str, dict[str, Any]]:
        out: dict[str, dict[str, Any]] = {}
        for task, text in _pairs(replies[0]):
            try:
                said = orjson.loads(text)
            except ValueError:
                continue
            if isinstance(said, dict):
                out[task.decode()] = said
        return out

    return Read([("HGETALL", keys.workers(namespace))], fold)


def standings(
    admin: LogAdmin,
    consumer: LogConsumer,
    group: str,
    names: Sequence[str],
    done: Mapping[TopicPartition, int],
    timeout_s: float,
) -> dict[str, list[Standing]]:
    """Where the group stands in each of the topics that exist. Raises `LogUnavailable`."""
    known = admin.topics()
    partitions = [TopicPartition(n, p) for n in names if n in known for p in range(known[n].partitions)]
    if not partitions:
        return {}
    bounds = admin.bounds(partitions)
    committed = admin.committed(group, partitions)
    out: dict[str, list[Standing]] = {}
    for partition in partitions:
        earliest, end = bounds[partition]
        # A topic made anew starts at 0 again: a position beyond its end is its former self's.
        positions = [p for p in (done.get(partition), committed.get(partition)) if p is not None and p <= end]
        position = max([earliest, *positions])
        first = _first(consumer, partition, position, timeout_s) if position < end else None
        out.setdefault(partition.topic, []).append(
            Standing(partition.partition, earliest, position, end, first)
        )
    return out


def lag_seconds(standing: Standing, now_ms: int) -> float:
    """Age of the oldest record that waits, 0 where none does."""
    return 0.0 if standing.first is None else max(0, now_ms - standing.first.timestamp) / 1000


def due(standing: Standing) -> int | None:
    """When the first waiting retry is due (ms)."""
    if standing.first is None:
        return None
    return number_header(standing.first, topics.NOT_BEFORE, standing.first.timestamp)


def number_header(record: Record, name: str, default: int) -> int:
    """A header's number; `default` where it is missing or none."""
    text = text_header(record, name)
    return int(text) if text.isdecimal() else default


def text_header(record: Record, name: str) -> str:
    """A header's text, "" where it is missing."""
    return next((value.decode("utf-8", "replace") for key, value in record.headers if key == name), "")


def _first(consumer: LogConsumer, partition: TopicPartition, offset: int, timeout_s: float) -> Record | None:
    try:
        return consumer.fetch(partition, [offset], timeout_s).get(offset)
    except OffsetOutOfRange:
        return None


def _pairs(reply: Any) -> Any:
    if isinstance(reply, dict):
        return reply.items()
    return zip(reply[::2], reply[1::2], strict=True)
