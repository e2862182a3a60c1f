"""Assignment: which partitions are a task's, and the offset at which each is begun.

Promises: every partition is one task's, by its number alone; a partition with a commit goes on there, and a choice made for
one without (`slice.start`) is committed before anything is read, so that it is made once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from clicktide.log.port import LogConsumer, TopicInfo, TopicPartition
from clicktide.start import EARLIEST, LATEST, start_of


def owned(
    known: Mapping[str, TopicInfo], names: Iterable[str], task: int, tasks: int
) -> tuple[list[TopicPartition], dict[str, str]]:
    """The task's partitions of those of these topics that exist, and the topics' ids."""
    ids = {name: known[name].id for name in names if name in known}
    mine = [TopicPartition(n, p) for n in ids for p in range(task, known[n].partitions, tasks)]
    return mine, ids


def begin(
    consumer: LogConsumer, mine: Sequence[TopicPartition], start: str, read: Collection[str]
) -> dict[TopicPartition, int]:
    """Where each partition is begun; `read` are the topics that this life has read before. Raises `LogError`."""
    committed = consumer.committed(mine)
    bounds = consumer.bounds(mine)
    fresh = _fresh(consumer, [p for p in mine if p not in committed and p.topic not in read], start, bounds)
    if fresh and start_of(start) != EARLIEST:
        # At once: a restart before the first commit must not choose again, later than now.
        consumer.commit(fresh)
    positions: dict[TopicPartition, int] = {}
    for partition in mine:
        earliest, end = bounds[partition]
        # What came since the bounds were asked is no reason to go back to them.
        end = max(end, fresh.get(partition, 0))
        offset = committed.get(partition, fresh.get(partition, earliest))
        positions[partition] = min(max(offset, earliest), end)
    return positions


def _fresh(
    consumer: LogConsumer,
    new: Sequence[TopicPartition],
    start: str,
    bounds: Mapping[TopicPartition, tuple[int, int]],
) -> dict[TopicPartition, int]:
    """Where `start` has a partition begin: those without a commit, of topics that this life has not read before.

    A partition added to a topic that is being read, and a topic made anew, are read whole: all in them is new.
    """
    chosen = start_of(start)
    if isinstance(chosen, int):
        return consumer.offsets_at(new, chosen) if new else {}
    return {p: bounds[p][chosen == LATEST] for p in new}
