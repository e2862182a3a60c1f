"""The catalog: which topics and partitions the log's file holds, and from which offset to which.

Every question is asked of the file, so all processes agree on the answer at once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from clicktide.errors import UnknownTopic
from clicktide.log.port import TopicInfo, TopicPartition


class Topic(NamedTuple):
    """A topic as the file knows it: `key` is never used again, `uid` is what the outside calls its id."""

    key: int
    uid: str
    partitions: int


def read_topics(connection: sqlite3.Connection) -> dict[str, Topic]:
    """All topics that exist, by name."""
    rows = connection.execute("SELECT name, id, uid, partitions FROM topics WHERE name IS NOT NULL")
    return {name: Topic(key, uid, partitions) for name, key, uid, partitions in rows}


def topic_infos(connection: sqlite3.Connection) -> dict[str, TopicInfo]:
    """All topics as the port shows them."""
    return {name: TopicInfo(name, t.uid, t.partitions) for name, t in read_topics(connection).items()}


def key_of(topics: Mapping[str, Topic], partition: TopicPartition) -> int:
    """The topic's key; raises `UnknownTopic` when topic or partition does not exist."""
    topic = topics.get(partition.topic)
    if topic is None:
        raise UnknownTopic(f"topic {partition.topic} does not exist")
    if not 0 <= partition.partition < topic.partitions:
        raise UnknownTopic(
            f"topic {partition.topic} has {topic.partitions} partitions, there is no {partition.partition}"
        )
    return topic.key


def bounds_of(connection: sqlite3.Connection, key: int, partition: int) -> tuple[int, int] | None:
    """(earliest, next) of one partition; None when it is gone."""
    row = connection.execute(
        "SELECT earliest, next FROM partitions WHERE topic = ? AND partition = ?", (key, partition)
    ).fetchone()
    return None if row is None else (row[0], row[1])


def ends_of(connection: sqlite3.Connection, keys: Collection[int]) -> dict[tuple[int, int], int]:
    """The next offset of each partition (topic's key, number) of the topics; of what is gone there is none."""
    marks = ",".join("?" * len(keys))
    rows = connection.execute(
        f"SELECT topic, partition, next FROM partitions WHERE topic IN ({marks})",
        tuple(keys),
    )
    return {(topic, partition): end for topic, partition, end in rows}


def read_bounds(
    connection: sqlite3.Connection, partitions: Iterable[TopicPartition]
) -> dict[TopicPartition, tuple[int, int]]:
    """(earliest, next) of each; raises `UnknownTopic`."""
    topics = read_topics(connection)
    found = {}
    for partition in partitions:
        bounds = bounds_of(connection, key_of(topics, partition), partition.partition)
        if bounds is None:
            raise UnknownTopic(f"topic {partition.topic} does not exist")
        found[partition] = bounds
    return found


def read_committed(
    connection: sqlite3.Connection, group: str, partitions: Iterable[TopicPartition]
) -> dict[TopicPartition, int]:
    """The group's next offset of each partition that it ever committed."""
    topics = read_topics(connection)
    found = {}
    for p in partitions:
        if p.topic in topics:
            row = connection.execute(
                "SELECT next FROM commits WHERE topic = ? AND partition = ? AND grp = ?",
                (topics[p.topic].key, p.partition, group),
            ).fetchone()
            if row is not None:
                found[p] = row[0]
    return found
