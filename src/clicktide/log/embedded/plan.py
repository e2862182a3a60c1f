"""The plan of one transaction: which records of which senders go to which partition, in which order.

A sender whose records cannot all be placed gets an error and none of them is written; the others are not affected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from clicktide.errors import LogError
from clicktide.log.embedded import chunk
from clicktide.log.embedded.catalog import Topic, key_of
from clicktide.log.port import Headers, Outgoing, Placed, TopicPartition
from clicktide.shards import partition_of

Answers = list[Placed]
_NOWHERE = Placed(-1, -1)


@dataclass(slots=True)
class Column:
    """What one partition gets, and whom to tell: (a sender's answers, the index in them) of each record."""

    timestamps: list[int] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)
    headers: list[Headers] = field(default_factory=list)
    tell: list[tuple[Answers, int]] = field(default_factory=list)

    def chunks(self) -> Iterator[chunk.Columns]:
        """The records as chunks of a size that is quick to read."""
        headers = self.headers if any(self.headers) else None
        whole = chunk.Columns(self.timestamps, self.keys, self.values, headers)
        count, size = len(self.values), sum(map(len, self.values)) + 1
        step = max(1, min(chunk.MAX_RECORDS, count * chunk.MAX_BYTES // size))
        if step >= count:
            yield whole
            return
        for start in range(0, count, step):
            yield whole.part(start, start + step)

    def place(self, partition: int, base: int) -> None:
        """Tell every sender where its record went: the first one to offset `base`, the others behind it."""
        for offset, (answers, index) in enumerate(self.tell, base):
            answers[index] = Placed(partition, offset)


@dataclass(slots=True)
class Plan:
    """`columns` by (topic key, partition); `outcomes` has one list of answers or one error a sender."""

    columns: dict[tuple[int, int], Column]
    outcomes: list[Answers | LogError]


def make_plan(
    senders: Sequence[Sequence[Outgoing]],
    topics: Mapping[str, Topic],
    refuse: Callable[[int], LogError | None],
    now_ms: int,
    keyless: int,
) -> Plan:
    """The plan for these senders. `refuse` says which topics take no more; `keyless` turns for records without a key."""
    plan = Plan({}, [])
    for records in senders:
        try:
            places = [_place_of(record, topics, keyless) for record in records]
            for key in {key for key, _ in places}:
                if (refused := refuse(key)) is not None:
                    raise refused
        except LogError as e:
            plan.outcomes.append(e)
            continue
        plan.outcomes.append(_enter(plan.columns, records, places, now_ms))
    return plan


def _place_of(record: Outgoing, topics: Mapping[str, Topic], keyless: int) -> tuple[int, int]:
    topic = topics.get(record.topic)
    if topic is None or record.partition is not None:
        partition = record.partition or 0
        return key_of(topics, TopicPartition(record.topic, partition)), partition
    if record.key is None:
        return topic.key, keyless % topic.partitions
    return topic.key, partition_of(record.key, topic.partitions)


def _enter(
    columns: dict[tuple[int, int], Column],
    records: Sequence[Outgoing],
    places: Sequence[tuple[int, int]],
    now_ms: int,
) -> Answers:
    answers = [_NOWHERE] * len(records)
    for index, (record, place) in enumerate(zip(records, places, strict=True)):
        column = columns.get(place)
        if column is None:
            column = columns[place] = Column()
        column.timestamps.append(now_ms if record.timestamp is None else record.timestamp)
        column.keys.append(record.key)
        column.values.append(record.value)
        column.headers.append(record.headers)
        column.tell.append((answers, index))
    return answers
