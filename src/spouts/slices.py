"""The spouts: slices of the fresh topic, and of the retry topics when they are due."""

from __future__ import annotations

import os
import random
import time
from functools import partial
from typing import Any

from streamparse import Stream

from clicktide import topics
from clicktide.holds import Holds
from clicktide.log import open_log
from clicktide.log.port import Record
from clicktide.packing import pack
from clicktide.retry import envelope
from clicktide.retry.policy import FATAL, longest_wait_ms
from clicktide.slices import FAILED, FAILURES, RECORDS, RETRIES, Failure, Failures, Records, Retries, Slice
from clicktide.source import Limits, Source, retry_names
from clicktide.sql import SqlStore
from clicktide.start import EARLIEST
from clicktide.suspect_notes import redis_notes
from clicktide.suspects import POISON
from clicktide.watch import StoreWatch
from multilang.component import TideSpout

# How long an idle `next` may hold the pipe that also carries acks, s. It ends with the first record, so only acks wait.
IDLE_S = 0.02
RETRY_IDLE_S = 0.1  # what is tried again has waited for a second anyway


class _SliceSpout(TideSpout):
    """Wires a `Source` to Storm. Subclasses say which topics, and what a slice looks like on the wire."""

    idle_s = IDLE_S
    listens = False  # to what the retry bolts say of the stores

    def initialize(self, storm_conf: dict[str, Any], context: dict[str, Any]) -> None:  # noqa: ARG002
        s = self.settings
        task, tasks = self.task_index(context)
        self.sql = SqlStore(s)
        pings = [partial(self.sql.ping, i) for i in range(len(self.sql.dsns))]
        self.watch = StoreWatch(
            s, time.monotonic, lambda: list(pings), wall_ms=_now_ms if self.listens else None
        ).start()
        limits = Limits(
            s.integer("slice.records"),
            s.number("slice.wait_ms") / 1000,
            s.integer("slice.in_flight"),
            s.number("commit.delay_s"),
            s.integer("retry.poison_fails"),
            self.start(),
            s.integer("slice.bytes"),
        )
        self.source = Source(
            open_log(s).consumer(s.text("group")),
            self.names(),
            task,
            tasks,
            limits,
            self.watch,
            time.monotonic,
            random.random,
            f"{os.getpid():x}{random.getrandbits(24):06x}",
            self.due(),
            _now_ms,
            redis_notes(s),
            longest_wait_ms,
            self.holds(),
        )
        self.watch.positions = self.source.positions

    def names(self) -> list[str]:
        raise NotImplementedError

    def due(self) -> Any:
        return None

    def holds(self) -> Holds | None:
        return None

    def start(self) -> str:
        return self.settings.text("slice.start")

    def send(self, found: Slice) -> None:
        raise NotImplementedError

    def next_tuple(self) -> None:
        found = self.source.next(self.idle_s)
        if found is None:
            return
        try:
            if found.poison:
                self.emit([pack(Failures(found.place, [_poison(found)]))], tup_id=found.id, stream=FAILED)
            else:
                self.send(found)
        except Exception:
            # Not on its way: nobody else would ever fail it.
            self.source.fail(found.id)
            raise

    def ack(self, tup_id: str) -> None:
        self.source.ack(tup_id)

    def fail(self, tup_id: str) -> None:
        self.source.fail(tup_id)


class KafkaSpout(_SliceSpout):
    """Slices of `events`."""

    outputs = [Stream(fields=RECORDS), Stream(fields=FAILURES, name=FAILED)]

    def names(self) -> list[str]:
        return [self.settings.text("topics.prefix") + topics.EVENTS]

    def send(self, found: Slice) -> None:
        records = Records(found.place, found.offsets, found.timestamps, found.values)
        self.emit([pack(records)], tup_id=found.id)


class RetrySpout(_SliceSpout):
    """Slices of the retry topics; a partition waits until its head is due, and while the store is away that it was parked for."""

    idle_s = RETRY_IDLE_S
    listens = True

    outputs = [Stream(fields=RETRIES), Stream(fields=FAILURES, name=FAILED)]

    def names(self) -> list[str]:
        return retry_names(self.settings.text("topics.prefix"))

    def due(self) -> Any:
        return envelope.not_before

    def holds(self) -> Holds:
        s = self.settings
        topic = f"{s.text('topics.prefix')}retry.{s.text('retry.park_tier')}"
        probe_s = s.number("breaker.probe_s")
        return Holds(topic, s.number("retry.hold_s"), probe_s, lambda: self.watch.seen().away)

    def start(self) -> str:
        return EARLIEST  # whatever waits there is ours, and still to be done

    def send(self, found: Slice) -> None:
        place = found.place
        stages, origins = [], []
        for i, value in enumerate(found.values):
            headers = found.headers[i] if found.headers else ()
            record = Record(
                place.topic, place.partition, found.offsets[i], found.timestamps[i], None, value, headers
            )
            read = envelope.read(record, place.topic_id)
            stages.append(read.stage)
            origins.append(read.origin)
        self.emit([pack(Retries(place, found.offsets, found.values, stages, origins))], tup_id=found.id)


def _now_ms() -> int:
    return int(time.time() * 1000)


def _poison(found: Slice) -> Failure:
    happened = "failed" if found.poison == POISON else "ended its worker"
    why = f"processing {happened} each time that this record was alone on its way, and went well with others before"
    return Failure(found.offsets[0], "poison", FATAL, found.poison, why)
