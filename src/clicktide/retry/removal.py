"""Removal: takes letters out of `dead`, wherever they lie in it.

A log can only be cut from the front. So what is to stay is written again at the end, with its key, bytes, headers and time, and
then all up to the last letter removed is cut away. Promises: nothing is cut before the broker has acknowledged what
stays; an interruption leaves at most letters that are there twice, which the desk shows once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from clicktide.log.port import LogAdmin, LogProducer, Outgoing, Record, TopicPartition
from clicktide.retry.letters import Letters, Progress

_AT_ONCE = 500
_TIMEOUT_S = 15.0


def survivors(letters: Letters, drop: Mapping[int, Collection[int]]) -> int:
    """How many records would have to be written again to remove these offsets (by partition)."""
    bounds = letters.bounds()
    total = 0
    for partition, offsets in drop.items():
        first, _ = bounds[TopicPartition(letters.topic, partition)]
        kept = [o for o in offsets if o >= first]
        total += max(kept, default=first - 1) + 1 - first - len(kept)
    return total


def remove(
    letters: Letters,
    producer: LogProducer,
    admin: LogAdmin,
    drop: Mapping[int, Collection[int]],
    progress: Progress | None = None,
) -> int:
    """Remove the records at these offsets of `dead` (by partition); answers how many had to be written again.

    Raises `LogUnavailable`. Only one at a time may do this.
    """
    bounds = letters.bounds()
    written = 0
    for partition, offsets in drop.items():
        if not offsets:
            continue
        tp = TopicPartition(letters.topic, partition)
        first, upto = bounds[tp][0], max(offsets) + 1
        if first < upto:
            staying = (r for r in letters.records({tp: (first, upto)}, progress) if r.offset not in offsets)
            written += _copy(producer, staying)
            admin.delete_records({tp: upto})
    return written


def _copy(producer: LogProducer, records: Iterable[Record]) -> int:
    waiting: list[Outgoing] = []
    count = 0
    for r in records:
        waiting.append(Outgoing(r.topic, r.key, r.value, r.headers, r.partition, r.timestamp))
        count += 1
        if len(waiting) >= _AT_ONCE:
            producer.send(waiting, _TIMEOUT_S)
            waiting = []
    if waiting:
        producer.send(waiting, _TIMEOUT_S)
    return count
