"""Reads single offsets of a partition through a librdkafka consumer of its own.

Reads neighbouring offsets in one go, so a slice costs one fetch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as KafkaPartition

from clicktide.errors import LogUnavailable
from clicktide.log.confluent.client import PARTITION_EOF, telling, told
from clicktide.log.port import Record, TopicPartition
from clicktide.log.runs import GAP, runs

_POLL_S = 0.2


def read_offsets(
    consumer: Consumer, partition: TopicPartition, offsets: Sequence[int], deadline: float
) -> dict[int, Record]:
    """The records at these ascending offsets; raises `LogUnavailable` at the deadline (monotonic seconds)."""
    wanted = set(offsets)
    found: dict[int, Record] = {}
    for first, last in runs(offsets):
        try:
            with telling("read"):
                consumer.assign([KafkaPartition(*partition, first)])
            _read_run(consumer, partition, last, wanted, found, deadline)
        finally:
            consumer.unassign()
    return found


def _read_run(
    consumer: Consumer,
    partition: TopicPartition,
    last: int,
    wanted: set[int],
    found: dict[int, Record],
    deadline: float,
) -> None:
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise LogUnavailable(f"Kafka: {partition.topic}:{partition.partition}: not read in time")
        with telling("read"):
            first = consumer.poll(min(left, _POLL_S))
            messages: list[Any] = [first, *consumer.consume(GAP, 0)] if first is not None else []
        for message in messages:
            error = message.error()
            if error is not None:
                if error.code() == PARTITION_EOF:
                    return
                if not error.retriable():
                    raise told(error, "read")
                continue
            if message.offset() in wanted:
                found[message.offset()] = _record(partition, message)
            if message.offset() >= last:
                return


def _record(partition: TopicPartition, message: Any) -> Record:
    headers = tuple((name, value or b"") for name, value in message.headers() or ())
    return Record(
        *partition, message.offset(), message.timestamp()[1], message.key(), message.value() or b"", headers
    )
