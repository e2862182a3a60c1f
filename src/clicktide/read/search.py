"""Search: where on the log an event is that the stores do not show: waiting, retrying, or dead.

Bounded: at most `MAX_RECORDS` of the newest records of each partition are looked at, until the deadline.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from clicktide.errors import OffsetOutOfRange
from clicktide.log.port import LogConsumer, Record, TopicPartition

MAX_RECORDS = 20_000
_POLL = 2_000


class _Named(msgspec.Struct):
    event_id: str | None = None


class Found(NamedTuple):
    """`complete`: all that was to be looked at was looked at."""

    records: list[Record]
    complete: bool


_named = msgspec.json.Decoder(_Named).decode


def find(
    consumer: LogConsumer,
    ranges: Mapping[TopicPartition, tuple[int, int]],
    event_id: str,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> Found:
    """Records of this event in [start, end) of each partition, in no order. Raises `LogUnavailable`."""
    left = {p: (max(start, end - MAX_RECORDS), end) for p, (start, end) in ranges.items() if start < end}
    records: list[Record] = []
    complete = all(end - start <= MAX_RECORDS for start, end in ranges.values())
    if not left:
        return Found(records, complete)
    consumer.assign({p: start for p, (start, _) in left.items()})
    ends = {p: end for p, (_, end) in left.items()}
    needles = _needles(event_id)
    deadline = clock() + seconds
    while ends and (rest := deadline - clock()) > 0:
        try:
            batches = consumer.poll(_POLL, min(rest, 0.2))
        except OffsetOutOfRange as e:
            partition = TopicPartition(e.topic, e.partition)
            if e.earliest >= ends.get(partition, 0):
                ends.pop(partition, None)
            consumer.seek(partition, e.earliest)
            continue
        for batch in batches:
            partition = TopicPartition(batch.topic, batch.partition)
            for i, value in enumerate(batch.values):
                if _is(value, event_id, needles):
                    records.append(
                        Record(
                            batch.topic,
                            batch.partition,
                            batch.offsets[i],
                            batch.timestamps[i],
                            batch.keys[i],
                            value,
                            batch.headers[i] if batch.headers is not None else (),
                        )
                    )
            if partition in ends and batch.offsets[-1] + 1 >= ends[partition]:
                del ends[partition]
                consumer.pause([partition])
    return Found(records, complete and not ends)


def _needles(event_id: str) -> Sequence[bytes]:
    # Decoding every record would cost ten times as much; escapes may hide the id, so those are decoded.
    slashes = (b"\\/",) if "/" in event_id else ()
    return (msgspec.json.encode(event_id)[1:-1], event_id.encode(), b"\\u", *slashes)


def _is(value: bytes, event_id: str, needles: Sequence[bytes]) -> bool:
    if not any(n in value for n in needles):
        return False
    try:
        return _named(value).event_id == event_id
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return False
