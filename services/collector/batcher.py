"""The batcher: brings the events of many requests to the broker in few writes, and answers each request after its own.

One thread owns the producer. It promises: a request is answered as accepted only when the broker acknowledged all of its
events; what waits is bounded by a number of events, beyond which `submit` refuses at once; a request whose deadline
passes is answered as not accepted, and is not written if it was not yet on its way (if it was, it may be stored: the
client sends it again with the same ids, and the pipeline counts it once).
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from clicktide.errors import ClicktideError, LogError, LogUnavailable, RecordTooLarge
from clicktide.log.port import Log, LogProducer, Outgoing
from services.telemetry import Telemetry

_LOG = logging.getLogger("clicktide.collector")


class Overloaded(ClicktideError):
    """As much waits as may wait; nothing of this request was taken."""

    retriable = True
    code = "overloaded"


class Stopping(ClicktideError):
    """The batcher takes nothing new."""

    retriable = True
    code = "stopping"


class Bounds(NamedTuple):
    """Events a write, seconds to wait for more of them, events that may wait, seconds for the acknowledgement."""

    batch: int
    linger: float
    queue: int
    timeout: float


class _Waiting(NamedTuple):
    records: Sequence[Outgoing]
    done: asyncio.Future[None]
    loop: asyncio.AbstractEventLoop


class Batcher:
    """`start`, `submit` many, `stop`. `clock` is monotonic seconds."""

    def __init__(
        self,
        log: Log,
        topic: str,
        bounds: Bounds,
        telemetry: Telemetry,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log, self._topic, self._bounds, self._telemetry, self._clock = (
            log,
            topic,
            bounds,
            telemetry,
            clock,
        )
        self._queue: deque[_Waiting] = deque()
        self._queued = 0
        self._change = threading.Condition()
        self._stopping = False
        self._producer: LogProducer | None = None
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self.log_up = False
        self.last_error = "the broker has not answered yet"

    def start(self) -> None:
        self._thread.start()

    async def submit(self, records: Sequence[Outgoing]) -> None:
        """Returns when the broker has acknowledged all of `records`.

        Raises `Overloaded`, `Stopping` (nothing was written), `LogUnavailable` (it may have been), `LogError`.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(records, loop.create_future(), loop)
        with self._change:
            if self._stopping:
                raise Stopping("the collector is stopping")
            if self._queued + len(records) > self._bounds.queue:
                raise Overloaded(
                    f"{self._queued} events wait for the broker, at most {self._bounds.queue} may"
                )
            first = not self._queue
            self._queue.append(waiting)
            self._queued += len(records)
            self._telemetry.queued.set(self._queued)
            # The thread is woken for the first and the last request of a write, not for each: a wake-up costs more than a request.
            if first or self._queued >= self._bounds.batch:
                self._change.notify()
        try:
            async with asyncio.timeout(self._bounds.timeout):
                await waiting.done
        except TimeoutError:
            raise LogUnavailable(f"no acknowledgement after {self._bounds.timeout:g} s") from None

    def stop(self, timeout: float) -> bool:
        """Takes nothing new, writes what waits; whether all of it was done within `timeout` seconds."""
        with self._change:
            self._stopping = True
            self._change.notify()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while True:
            batch = self._take()
            if batch is None:
                break
            if batch:
                self._write(batch)
            elif not self.log_up:
                self._probe()
        if self._producer is not None:
            self._producer.close()

    def _take(self) -> list[_Waiting] | None:
        """The requests of the next write; [] when it is time to see whether the broker is back; None at the end."""
        with self._change:
            while not self._queue:
                if self._stopping:
                    return None
                if not self._change.wait(None if self.log_up else 1.0):
                    return []
                if not self.log_up and not self._queue and not self._stopping:
                    return []
            if self._queued < self._bounds.batch and self._bounds.linger and not self._stopping:
                self._change.wait_for(
                    lambda: self._queued >= self._bounds.batch or self._stopping, self._bounds.linger
                )
            count = 0
            out: list[_Waiting] = []
            while self._queue and (not out or count + len(self._queue[0].records) <= self._bounds.batch):
                waiting = self._queue.popleft()
                self._queued -= len(waiting.records)
                # Nobody waits for it any more: its client was told to send it again.
                if not waiting.done.cancelled():
                    out.append(waiting)
                    count += len(waiting.records)
            self._telemetry.queued.set(self._queued)
            return out

    def _write(self, batch: list[_Waiting]) -> None:
        records = [record for waiting in batch for record in waiting.records]
        started = self._clock()
        error: Exception | None = None
        try:
            if self._producer is None:
                self._producer = self._log.producer()
            self._producer.send(records, self._bounds.timeout)
        except Exception as e:  # whatever it is, the requests must be answered and the thread must live
            error = e
            if not isinstance(e, LogError):
                _LOG.exception("writing %d events failed", len(records))
        if isinstance(error, RecordTooLarge) and len(batch) > 1:
            # One request's record must not cost its neighbours; nothing of this batch was written.
            for waiting in batch:
                self._write([waiting])
            return
        self._telemetry.batch.observe(len(records))
        self._telemetry.send_seconds.observe(self._clock() - started)
        self._note(error)
        by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
        for waiting in batch:
            by_loop.setdefault(waiting.loop, []).append(waiting.done)
        for loop, futures in by_loop.items():
            # A loop that is closed has nobody left to answer.
            if not loop.is_closed():
                loop.call_soon_threadsafe(_resolve, futures, error)

    def _probe(self) -> None:
        admin = None
        try:
            admin = self._log.admin()
            known = self._topic in admin.topics()
            self._note(None if known else LogUnavailable(f"the broker has no topic {self._topic}"))
        except Exception as e:  # as above
            self._note(e)
        finally:
            if admin is not None:
                admin.close()

    def _note(self, error: Exception | None) -> None:
        # A record that is too large says nothing of the broker.
        up = error is None or isinstance(error, RecordTooLarge)
        if up != self.log_up:
            _LOG.log(
                logging.INFO if up else logging.WARNING,
                "the broker is %s",
                "there" if up else f"away: {error}",
            )
        self.log_up = up
        self.last_error = "" if up else str(error)
        self._telemetry.log_up.set(1 if up else 0)


def _resolve(futures: list[asyncio.Future[None]], error: Exception | None) -> None:
    for future in futures:
        if future.done():
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
