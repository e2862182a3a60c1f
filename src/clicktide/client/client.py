"""The client: `send` puts an event into a bounded queue; one background thread brings it to the collector.

Promises: `send` never waits for the network; an event that was taken is tried until the collector has answered for it, always with
the same id, so that it counts once; whatever becomes of it is counted, and refusals are told. What waits is in memory: it ends with
the process, after `close` or at exit has tried to bring it away.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import random
import ssl
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Literal, Self

from clicktide.client.backoff import pause_s
from clicktide.client.counters import Counters
from clicktide.client.errors import Again, ClientClosed, QueueFull, Refused
from clicktide.client.item import Item, item
from clicktide.client.queue import Queue
from clicktide.client.transport import LATER, Rejection, Transport, Verdicts

_HELD = 5  # who was limited waits as after so many failures: up to some seconds
_LOG = logging.getLogger("clicktide.client")
GIVE_UP_S = 72_000.0  # 20 h: well inside the window in which the pipeline knows an id again (claims.window_h)

OnRejected = Callable[[dict[str, Any], str, str], None]
_clients: weakref.WeakSet[Client] = weakref.WeakSet()


class Client:
    """`url` is the collector's, `key` a write key. Safe to use from many threads, and in a child after a fork.

    A batch goes out when it has `batch_events` or `batch_bytes`, or `linger_s` after its first event. At most `queue_events`
    and `queue_bytes` wait; then `when_full` says whether a new event is dropped (and counted) or `QueueFull` is raised.
    `on_rejected(event, code, detail)` is called in the background thread for each event that will never be accepted; `given_up` is
    the code of one that was tried for `give_up_s`. At exit the client tries for `exit_s` to send what waits.
    Raises ValueError for an address that is none.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        queue_events: int = 10_000,
        queue_bytes: int = 16 * 1024 * 1024,
        when_full: Literal["drop", "raise"] = "drop",
        batch_events: int = 500,
        batch_bytes: int = 512 * 1024,
        linger_s: float = 0.05,
        timeout_s: float = 15.0,
        give_up_s: float = GIVE_UP_S,
        exit_s: float = 5.0,
        on_rejected: OnRejected | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        if when_full not in {"drop", "raise"}:
            raise ValueError(f"when_full: expected 'drop' or 'raise', got {when_full!r}")
        self._batch_events, self._batch_bytes, self._linger = batch_events, batch_bytes, linger_s
        self._bounds = queue_events, queue_bytes
        self._when_full, self._give_up_s, self._exit_s = when_full, give_up_s, exit_s
        self._on_rejected = on_rejected
        self._transport = Transport(url, key, timeout_s, ssl_context)
        self._closed = False
        self._begin()
        _clients.add(self)
        atexit.register(self.close)

    def _begin(self) -> None:
        """An empty queue and no thread: at first, and in a child after a fork, whose events are its parent's to send."""
        self._changed = threading.Condition()
        self._hurry = threading.Event()
        self._queue = Queue(*self._bounds)
        self._counters = Counters()
        self._thread: threading.Thread | None = None
        self._flushing = 0
        self._abandoned = False

    def send(self, event: Mapping[str, Any] | None = None, /, **fields: Any) -> str | None:
        """Takes an event and answers with its id; None when it was dropped, because the queue is full.

        `event_id` and `occurred_at` are made here where they are missing. Raises `ClientClosed`, `QueueFull`, and TypeError
        or ValueError for what is no JSON. Whether the event is a good one only the collector says: see `on_rejected`.
        """
        made = item(0, {**(event or {}), **fields}, time.time_ns() // 1_000_000, _new_id)
        with self._changed:
            if self._closed:
                raise ClientClosed("the client is closed")
            if not self._queue.fits(made):
                self._count(dropped=1)
                if self._when_full == "raise":
                    raise QueueFull(f"{len(self._queue)} events wait for the collector")
                return None
            self._count(taken=1)
            made.number = self._counters.taken
            self._queue.put(made)
            events, size = self._queue.waiting
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="clicktide-client", daemon=True)
                self._thread.start()
            # It is woken for the first and the last of a batch, not for each.
            if events == 1 or events >= self._batch_events or size >= self._batch_bytes:
                self._changed.notify_all()
        return made.event_id

    def flush(self, timeout: float | None = None) -> bool:
        """Waits until all that was taken before is done, at most `timeout` seconds; whether it is."""
        with self._changed:
            last = self._counters.taken
            self._flushing += 1
            self._changed.notify_all()
            try:
                return self._changed.wait_for(lambda: not self._queue.open_up_to(last), timeout)
            finally:
                self._flushing -= 1

    def close(self, timeout: float | None = None) -> bool:
        """Takes nothing new and sends what waits, for at most `timeout` seconds (None: `exit_s`); whether all is done.

        What waits for another attempt gets one at once. May be called twice.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        atexit.unregister(self.close)
        self._hurry.set()
        complete = self.flush(self._exit_s if timeout is None else timeout)
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()
            left = len(self._queue)
        self._hurry.set()
        if self._thread is not None and complete:
            self._thread.join(1.0)
        if left:
            _LOG.warning("closed with %d events that the collector has not answered for", left)
        return complete

    @property
    def counters(self) -> Counters:
        with self._changed:
            return self._counters._replace(waiting=len(self._queue))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- the background thread

    def _work(self) -> None:
        while batch := self._take():
            try:
                self._deliver(batch)
            except Exception:  # a mistake in here must not end all sending
                _LOG.exception("sending %d events failed", len(batch))
                self._settle([], [], batch)
        self._transport.close()

    def _take(self) -> list[Item]:
        """The next batch; [] at the end."""
        with self._changed:
            since: float | None = None
            while not self._abandoned:
                now = time.monotonic()
                self._queue.release(now)
                events, size = self._queue.waiting
                if events:
                    since = now if since is None else since
                    wait = since + self._linger - now
                    full = events >= self._batch_events or size >= self._batch_bytes
                    if wait <= 0 or full or self._flushing or self._closed:
                        return self._queue.take(self._batch_events, self._batch_bytes)
                    self._changed.wait(wait)
                else:
                    due = self._queue.next_due()
                    self._changed.wait(None if due is None else max(0.0, due - now))
            return []

    def _deliver(self, batch: list[Item]) -> None:
        """Until each event of the batch is done or held back, or the client was abandoned."""
        work, failures = [batch], 0
        while work and not self._abandoned:
            part = self._still_young(work.pop())
            if not part:
                continue
            now_ms = time.time_ns() // 1_000_000
            try:
                verdicts = self._transport.post([i.sent(now_ms) for i in part])
            except Again as again:
                work.append(part)
                self._failed(str(again), failures)
                self._wait(pause_s(failures, again.retry_after, random.random))
                failures += 1
            except Refused as refused:
                self._succeeded()
                if half := len(part) // 2:
                    work += [part[half:], part[:half]]  # the first half is the next to go
                else:
                    self._book(part, Verdicts([Rejection(refused.code, refused.detail)]))
            else:
                failures = 0
                self._succeeded()
                self._book(part, verdicts)

    def _still_young(self, part: list[Item]) -> list[Item]:
        now = time.monotonic()
        old = [i for i in part if i.tried is not None and now - i.tried > self._give_up_s]
        for i in part:
            i.tried = now if i.tried is None else i.tried
        if old:
            self._settle([], [], old)
            self._tell(old, [Rejection("given_up", f"not accepted in {self._give_up_s:g} s")] * len(old))
        return [i for i in part if i not in old] if old else part

    def _book(self, part: list[Item], verdicts: Verdicts) -> None:
        accepted, rejected, why, later = [], [], [], []
        for one, verdict in zip(part, verdicts.of, strict=True):
            if verdict is None:
                accepted.append(one)
            elif verdict.code in LATER:
                later.append(one)
            else:
                rejected.append(one)
                why.append(verdict)
        if later:
            # One user's limit must not hold up the others: these wait aside.
            with self._changed:
                self._count(retries=1)
                self._queue.hold(
                    later, time.monotonic() + pause_s(_HELD, verdicts.retry_after, random.random)
                )
        self._settle(accepted, rejected, [])
        self._tell(rejected, why)

    def _settle(self, accepted: list[Item], rejected: list[Item], given_up: list[Item]) -> None:
        with self._changed:
            self._queue.done([*accepted, *rejected, *given_up])
            self._count(accepted=len(accepted), rejected=len(rejected), given_up=len(given_up))
            self._changed.notify_all()

    def _tell(self, items: list[Item], why: list[Rejection]) -> None:
        for one, (code, detail) in zip(items, why, strict=True):
            if self._on_rejected is None:
                _LOG.warning("event %s was refused: %s %s", one.event_id, code, detail)
                continue
            try:
                self._on_rejected(json.loads(one.text), code, detail)
            except Exception:
                _LOG.exception("on_rejected failed")

    def _failed(self, reason: str, failures: int) -> None:
        if failures == 0:
            _LOG.warning("the collector does not take events, trying again: %s", reason)
        with self._changed:
            self._count(requests=1, retries=1)
            self._counters = self._counters._replace(last_error=reason)

    def _succeeded(self) -> None:
        with self._changed:
            self._count(requests=1)
            self._counters = self._counters._replace(last_error="")

    def _wait(self, seconds: float) -> None:
        if self._hurry.wait(seconds):
            self._hurry.clear()

    def _count(self, **more: int) -> None:
        old = self._counters
        self._counters = old._replace(**{name: getattr(old, name) + n for name, n in more.items()})

    def _after_fork(self) -> None:
        self._transport.forget()
        self._begin()


def _new_id() -> str:
    return uuid.uuid4().hex


def _after_fork() -> None:
    for client in list(_clients):
        client._after_fork()  # noqa: SLF001 (this module's own class)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
