"""Sends records in lanes: a user's records keep their order, several requests are under way at a time.

What is accepted is written to the truth file right after; what may have been accepted is sent again with the same ids
until that is known, for as long as the sender is not told to stop.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bench.targets import MAX_BYTES, MAX_RECORDS, Away, Connection, Refused, Target
from bench.truth import MALFORMED, Record, TruthWriter

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0
_WORST_MS = 600_000


class Stats:
    """What became of the records, counted under one lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.accepted: Counter[str] = Counter()  # by kind
        self.rejected: Counter[str] = (
            Counter()
        )  # by code; malformed ones that were refused, as they should be
        self.lost: Counter[str] = Counter()  # by code; good ones that were refused
        self.unknown = 0
        self.retries = 0
        self.waiting = ""  # why the target does not take records now
        self.delays_ms: Counter[int] = Counter()  # from the intended time to the acceptance

    @property
    def done(self) -> int:
        return self.accepted.total() + self.rejected.total() + self.lost.total() + self.unknown

    def delay_ms(self, quantile: float) -> int:
        """The delay that this share of the accepted records did not exceed; 0 where there are none."""
        with self.lock:
            wanted, seen = quantile * self.delays_ms.total(), 0
            for delay in sorted(self.delays_ms):
                seen += self.delays_ms[delay]
                if seen >= wanted:
                    return delay
        return 0


class Sender:
    """Lanes of one thread each; give it records with `put`, end it with `close`.

    `capacity` bounds the records that wait; a lane sends what there is as soon as its request before is answered.
    """

    def __init__(
        self,
        target: Target,
        truth: TruthWriter | None = None,
        *,
        lanes: int | None = None,
        capacity: int = 100_000,
        clock_ms: Callable[[], float] = lambda: time.time() * 1000,
    ) -> None:
        self.stats = Stats()
        self.error: BaseException | None = None
        self.on_wait: Callable[[], None] = lambda: None  # called while `put` blocks
        self._target, self._truth, self._clock_ms = target, truth, clock_ms
        self._stopping = threading.Event()
        count = lanes or target.lanes
        self._lanes = [_Lane(self, target.connect(), max(1, capacity // count), i) for i in range(count)]
        for lane in self._lanes:
            lane.start()

    @property
    def backlog(self) -> int:
        """Records that wait in the lanes, those under way included."""
        return sum(lane.waiting for lane in self._lanes)

    def put(self, records: Iterable[Record]) -> None:
        """Queue the records; blocks while a lane is full. Raises what ended a lane, if something did."""
        lanes = self._lanes
        parts: list[list[Record]] = [[] for _ in lanes]
        for record in records:
            parts[hash(record.user_id) % len(lanes)].append(record)
        for lane, part in zip(lanes, parts, strict=True):
            if part:
                lane.put(part)
        self.check()

    def check(self) -> None:
        if self.error is not None:
            raise self.error

    def close(self, patience_s: float | None = None) -> bool:
        """Send what waits, for at most `patience_s` (None: for as long as it takes); whether all was sent.

        What is then still under way is written to the truth as unknown; what was not sent is dropped.
        """
        until = None if patience_s is None else time.monotonic() + patience_s
        try:
            while self.backlog and self.error is None and (until is None or time.monotonic() < until):
                time.sleep(0.01)
        finally:
            complete = not self.backlog
            self._stopping.set()
            for lane in self._lanes:
                lane.end()
            for lane in self._lanes:
                lane.join()
            self._target.close()
        self.check()
        return complete

    def taken(self, records: Sequence[Record], verdicts: Sequence[str | None]) -> None:
        """Book what became of the records, the truth first."""
        accepted = [r for r, code in zip(records, verdicts, strict=True) if code is None]
        if self._truth is not None and accepted:
            self._truth.write(accepted)
        now = self._clock_ms()
        stats = self.stats
        with stats.lock:
            stats.waiting = ""
            for record in accepted:
                stats.accepted[record.kind] += 1
                stats.delays_ms[min(_WORST_MS, max(0, int(now - record.at)))] += 1
            if len(accepted) < len(records):
                for record, code in zip(records, verdicts, strict=True):
                    if code is not None:
                        (stats.rejected if record.kind == MALFORMED else stats.lost)[code] += 1

    def unresolved(self, records: Sequence[Record]) -> None:
        """Book records that the target may or may not have taken."""
        if self._truth is not None:
            self._truth.write(records, unknown=True)
        with self.stats.lock:
            self.stats.unknown += len(records)

    def pause(self, away: Away, attempt: int) -> bool:
        """Wait before the next attempt; False when the sender is to stop."""
        with self.stats.lock:
            self.stats.retries += 1
            self.stats.waiting = str(away)
        backoff = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(attempt, 10))
        wait = away.retry_after_s if away.retry_after_s is not None else backoff * random.uniform(0.5, 1)
        return not self._stopping.wait(max(wait, 0.01))

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()


class _Lane(threading.Thread):
    """One connection and the queue in front of it; one request at a time keeps the order."""

    def __init__(self, sender: Sender, connection: Connection, capacity: int, number: int) -> None:
        super().__init__(name=f"lane-{number}", daemon=True)
        self._sender, self._connection, self._capacity = sender, connection, capacity
        self._queue: deque[Record] = deque()
        self._under_way = 0
        self._changed = threading.Condition()
        self._ended = False

    @property
    def waiting(self) -> int:
        with self._changed:  # between the two a batch would be in neither
            return len(self._queue) + self._under_way

    def put(self, records: Sequence[Record]) -> None:
        with self._changed:
            while len(self._queue) >= self._capacity and not self._ended:
                self._changed.wait(0.2)
                self._sender.on_wait()
            self._queue.extend(records)
            self._changed.notify_all()

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def run(self) -> None:
        try:
            while batch := self._take():
                self._deliver(batch)
                with self._changed:
                    self._under_way = 0
        except BaseException as e:
            self._sender.error = self._sender.error or e
            self.end()
        finally:
            self._connection.close()

    def _take(self) -> list[Record]:
        """The next request's records; [] at the end."""
        with self._changed:
            while not self._queue and not self._ended:
                self._changed.wait()
            batch: list[Record] = []
            if self._ended:
                return batch
            size = 0
            queue = self._queue
            while queue and len(batch) < MAX_RECORDS:
                size += len(queue[0].value) + 1
                if size > MAX_BYTES and batch:
                    break
                batch.append(queue.popleft())
            self._under_way = len(batch)
            self._changed.notify_all()
            return batch

    def _deliver(self, batch: list[Record]) -> None:
        """Send until each record is accepted, refused, or left unknown by the end."""
        work: list[list[Record]] = [batch]
        attempt = 0
        maybe_taken = False
        while work:
            part = work[-1]
            try:
                verdicts = self._connection.send(part)
            except Refused:
                half = len(part) // 2
                work[-1:] = [part[half:], part[:half]]  # the first half is the next to go
                continue
            except Away as away:
                maybe_taken = maybe_taken or away.maybe_taken
                if self._sender.pause(away, attempt):
                    attempt += 1
                    continue
                if maybe_taken:
                    self._sender.unresolved(part)
                return
            work.pop()
            attempt, maybe_taken = 0, False
            self._sender.taken(part, verdicts)


def summary(stats: Stats) -> dict[str, Any]:
    """The counts and delays as plain values (ms)."""
    with stats.lock:
        counts = {
            "accepted": dict(stats.accepted),
            "rejected": dict(stats.rejected),
            "lost": dict(stats.lost),
            "unknown": stats.unknown,
            "retries": stats.retries,
        }
    return {**counts, "delay_ms": {f"p{q * 100:g}": stats.delay_ms(q) for q in (0.5, 0.99, 0.999)}}
