"""A log whose calls fail as a test says: wraps any adapter, the crash is data.

Without a script it is the log that it wraps. A scripted failure comes before the call or after it ("it was written,
then the answer was lost"), once each, in the order given. Safe to call from several threads.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from clicktide.log.port import (
    Batch,
    Log,
    LogAdmin,
    LogConsumer,
    LogProducer,
    Outgoing,
    Placed,
    Record,
    TopicInfo,
    TopicPartition,
)

T = TypeVar("T")

CALLS = frozenset(
    [
        "send",
        "assign",
        "seek",
        "pause",
        "resume",
        "poll",
        "fetch",
        "committed",
        "commit",
        "bounds",
        "offsets_at",
        "topics",
        "create_topics",
        "add_partitions",
        "delete_topics",
        "delete_records",
    ]
)


class FaultyLog:
    """`Log` with a script. `calls` counts the calls of each name, failed ones included."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._script: dict[str, deque[tuple[Exception, bool]]] = defaultdict(deque)
        self.calls: dict[str, int] = defaultdict(int)

    def fail_next(self, call: str, error: Exception, *, after_write: bool = False, times: int = 1) -> None:
        """Let the next `times` calls of that name raise `error`; with `after_write`, once their work is done."""
        if call not in CALLS:
            raise ValueError(f"{call!r} is no call of the log: expected one of {', '.join(sorted(CALLS))}")
        with self._lock:
            self._script[call].extend([(error, after_write)] * times)

    def heal(self) -> None:
        """Forget what was scripted and has not happened yet."""
        with self._lock:
            self._script.clear()

    def act(self, call: str, work: Callable[[], T]) -> T:
        """Do `work` as the script says."""
        with self._lock:
            self.calls[call] += 1
            error, after = self._script[call].popleft() if self._script[call] else (None, False)
        if error is not None and not after:
            raise error
        result = work()
        if error is not None:
            raise error
        return result

    def consumer(self, group: str) -> FaultyConsumer:
        return FaultyConsumer(self, self._log.consumer(group))

    def producer(self) -> FaultyProducer:
        return FaultyProducer(self, self._log.producer())

    def admin(self) -> FaultyAdmin:
        return FaultyAdmin(self, self._log.admin())


class FaultyProducer:
    """`LogProducer` with the log's script."""

    def __init__(self, log: FaultyLog, inner: LogProducer) -> None:
        self._log, self._inner = log, inner

    def send(self, records: Sequence[Outgoing], timeout_s: float) -> list[Placed]:
        return self._log.act("send", lambda: self._inner.send(records, timeout_s))

    def close(self) -> None:
        self._inner.close()


class FaultyConsumer:
    """`LogConsumer` with the log's script."""

    def __init__(self, log: FaultyLog, inner: LogConsumer) -> None:
        self._log, self._inner = log, inner

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        self._log.act("assign", lambda: self._inner.assign(positions))

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._log.act("seek", lambda: self._inner.seek(partition, offset))

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        self._log.act("pause", lambda: self._inner.pause(partitions))

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        self._log.act("resume", lambda: self._inner.resume(partitions))

    def poll(self, max_records: int, timeout_s: float) -> list[Batch]:
        return self._log.act("poll", lambda: self._inner.poll(max_records, timeout_s))

    def fetch(self, partition: TopicPartition, offsets: Sequence[int], timeout_s: float) -> dict[int, Record]:
        return self._log.act("fetch", lambda: self._inner.fetch(partition, offsets, timeout_s))

    def committed(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return self._log.act("committed", lambda: self._inner.committed(partitions))

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        self._log.act("commit", lambda: self._inner.commit(offsets))

    def bounds(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        return self._log.act("bounds", lambda: self._inner.bounds(partitions))

    def offsets_at(self, partitions: Sequence[TopicPartition], timestamp: int) -> dict[TopicPartition, int]:
        return self._log.act("offsets_at", lambda: self._inner.offsets_at(partitions, timestamp))

    def topics(self) -> dict[str, TopicInfo]:
        return self._log.act("topics", self._inner.topics)

    def close(self) -> None:
        self._inner.close()


class FaultyAdmin:
    """`LogAdmin` with the log's script."""

    def __init__(self, log: FaultyLog, inner: LogAdmin) -> None:
        self._log, self._inner = log, inner

    def create_topics(self, topics: Mapping[str, int], retention_ms: int | None = None) -> None:
        self._log.act("create_topics", lambda: self._inner.create_topics(topics, retention_ms))

    def add_partitions(self, topic: str, partitions: int) -> None:
        self._log.act("add_partitions", lambda: self._inner.add_partitions(topic, partitions))

    def delete_topics(self, topics: Sequence[str]) -> None:
        self._log.act("delete_topics", lambda: self._inner.delete_topics(topics))

    def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        self._log.act("delete_records", lambda: self._inner.delete_records(before))

    def topics(self) -> dict[str, TopicInfo]:
        return self._log.act("topics", self._inner.topics)

    def bounds(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        return self._log.act("bounds", lambda: self._inner.bounds(partitions))

    def committed(self, group: str, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return self._log.act("committed", lambda: self._inner.committed(group, partitions))

    def close(self) -> None:
        self._inner.close()
