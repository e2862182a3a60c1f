"""The embedded consumer against a model: any sequence of assign, seek, pause, resume, write, drop and poll."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from contract.log_adapters import WAIT_S, at, records_of
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from clicktide.errors import OffsetOutOfRange
from clicktide.log.embedded import EmbeddedLog
from clicktide.log.port import Outgoing, Record, TopicPartition

PARTITIONS = 3
numbers = st.integers(0, PARTITIONS - 1)


class ConsumerModel(RuleBasedStateMachine):
    """Lists of values stand for partitions; positions, pauses and commits are plain values."""

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.log = EmbeddedLog(self.folder / "log.db", 1 << 30)
        self.admin = self.log.admin()
        self.admin.create_topics({"t": PARTITIONS})
        self.producer = self.log.producer()
        self.consumer = self.log.consumer("g")
        self.written: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
        self.earliest = [0] * PARTITIONS
        self.positions: dict[int, int] = {}
        self.paused: set[int] = set()
        self.committed: dict[TopicPartition, int] = {}

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.consumer.close()
            self.producer.close()
            self.admin.close()
            shutil.rmtree(self.folder)

    @rule(partition=numbers, count=st.integers(1, 12), size=st.integers(0, 40))
    def write(self, partition: int, count: int, size: int) -> None:
        start = len(self.written[partition])
        new = [b"%d:%d:" % (partition, start + i) + b"x" * size for i in range(count)]
        headers = (("size", b"%d" % size),) if size % 2 else ()
        placed = self.producer.send([Outgoing("t", None, v, headers, partition) for v in new], WAIT_S)
        assert [p.offset for p in placed] == list(range(start, start + count))
        self.written[partition] += new

    @rule(partition=numbers, ahead=st.integers(-2, 30))
    def drop(self, partition: int, ahead: int) -> None:
        before = self.earliest[partition] + ahead
        self.admin.delete_records({at("t", partition): before})
        self.earliest[partition] = max(self.earliest[partition], min(before, len(self.written[partition])))

    @rule(positions=st.dictionaries(numbers, st.floats(0, 1)))
    def assign(self, positions: dict[int, float]) -> None:
        self.positions = {p: self._place(p, share) for p, share in positions.items()}
        self.paused.clear()
        self.consumer.assign({at("t", p): offset for p, offset in self.positions.items()})

    @rule(partition=numbers, share=st.floats(0, 1))
    def seek(self, partition: int, share: float) -> None:
        if partition in self.positions:
            self.positions[partition] = self._place(partition, share)
            self.consumer.seek(at("t", partition), self.positions[partition])

    def _place(self, partition: int, share: float) -> int:
        low, high = self.earliest[partition], len(self.written[partition])
        return low + round(share * (high - low))

    @rule(partition=numbers, pause=st.booleans())
    def pause_or_resume(self, partition: int, pause: bool) -> None:
        if partition in self.positions:
            (self.paused.add if pause else self.paused.discard)(partition)
            (self.consumer.pause if pause else self.consumer.resume)([at("t", partition)])

    @rule(limit=st.integers(1, 25))
    def poll(self, limit: int) -> None:
        reading = {p: offset for p, offset in self.positions.items() if p not in self.paused}
        try:
            records = records_of(self.consumer.poll(limit, 0))
        except OffsetOutOfRange as e:
            error = e
        else:
            self._check_polled(records, limit, reading)
            return
        assert reading[error.partition] == error.offset < error.earliest == self.earliest[error.partition]
        self.consumer.seek(at("t", error.partition), error.earliest)
        self.positions[error.partition] = error.earliest

    def _check_polled(self, records: list[Record], limit: int, reading: dict[int, int]) -> None:
        assert len(records) <= limit
        for r in records:
            assert r.partition in reading
            assert r.offset == self.positions[r.partition]
            # Records that were decoded before they were dropped may still come, as from Kafka's fetch queue.
            assert r.value == self.written[r.partition][r.offset]
            assert r.headers == (
                () if r.value.count(b"x") % 2 == 0 else (("size", b"%d" % r.value.count(b"x")),)
            )
            self.positions[r.partition] += 1
        if len(records) < limit:
            assert all(self.positions[p] == len(self.written[p]) for p in reading) or not records

    @rule(partition=numbers, offset=st.integers(0, 40))
    def commit(self, partition: int, offset: int) -> None:
        self.consumer.commit({at("t", partition): offset})
        self.committed[at("t", partition)] = offset

    @rule(partition=numbers, offsets=st.lists(st.integers(0, 60), max_size=8))
    def fetch(self, partition: int, offsets: list[int]) -> None:
        found = self.consumer.fetch(at("t", partition), offsets, WAIT_S)
        expected = {o for o in offsets if self.earliest[partition] <= o < len(self.written[partition])}
        assert found.keys() == expected
        assert all(r.value == self.written[partition][o] for o, r in found.items())

    @invariant()
    def agrees(self) -> None:
        if hasattr(self, "folder"):
            everywhere = [at("t", p) for p in range(PARTITIONS)]
            assert self.consumer.committed(everywhere) == self.committed
            assert self.consumer.bounds(everywhere) == {
                at("t", p): (self.earliest[p], len(self.written[p])) for p in range(PARTITIONS)
            }


ConsumerModel.TestCase.settings = settings(
    max_examples=12,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestConsumerModel = ConsumerModel.TestCase
