"""Drives a run: takes records when they are due, hands them to the sender, shows progress, sums up.

An open loop never slows down: a record's intended time is fixed by the schedule, and when the generator or the target
falls behind, that is said and measured, not hidden.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from bench.progress import Meter
from bench.sender import Sender, Stats, summary
from bench.truth import Record

TICK_S = 0.01  # an open loop looks so often for what is due: a request then holds several records
_BEHIND_MS = 1000  # from here on the generator says that it is behind
_SHOW_EVERY_S = 0.25
_LAST_WAIT_S = 20.0  # after Ctrl-C, for what is under way
_STEP = 500


@dataclass(slots=True)
class Run:
    """What a run did; `lag_ms` is the worst delay between a record's intended time and its hand-over to a lane."""

    sent: int = 0
    seconds: float = 0.0
    lag_ms: int = 0
    interrupted: bool = False
    complete: bool = True
    stats: Stats = field(default_factory=Stats)

    def as_dict(self) -> dict[str, Any]:
        return {
            "sent": self.sent,
            "seconds": round(self.seconds, 3),
            "lag_ms": self.lag_ms,
            "interrupted": self.interrupted,
            **summary(self.stats),
        }

    def lines(self) -> Iterator[str]:
        """The summary for a person."""
        stats = self.stats
        rate = self.sent / self.seconds if self.seconds else 0.0
        yield f"sent {self.sent} records in {self.seconds:.1f} s ({rate:.0f}/s)"
        kinds = ", ".join(f"{kind} {n}" for kind, n in sorted(stats.accepted.items()))
        yield f"accepted {stats.accepted.total()}" + (f": {kinds}" if kinds else "")
        if stats.rejected:
            yield f"malformed and refused {stats.rejected.total()}: {_counts(stats.rejected)}"
        if stats.lost:
            yield f"REFUSED {stats.lost.total()} good records: {_counts(stats.lost)}"
        if stats.unknown:
            yield f"unknown {stats.unknown}: interrupted before the answer came"
        if stats.retries:
            yield f"requests sent again {stats.retries}"
        if stats.delays_ms:
            p50, p99 = stats.delay_ms(0.5), stats.delay_ms(0.99)
            yield f"from the intended time to the acceptance: p50 {p50} ms, p99 {p99} ms"
        if self.lag_ms >= _BEHIND_MS:
            yield f"the generator was behind its schedule by up to {self.lag_ms / 1000:.1f} s"

    def exit_code(self) -> int:
        """0 when every record found its end and no good one was refused."""
        if self.interrupted:
            return 130
        return 1 if self.stats.lost or self.stats.unknown or not self.complete else 0


def _counts(counter: dict[str, int]) -> str:
    return ", ".join(f"{code} {n}" for code, n in sorted(counter.items(), key=lambda c: -c[1]))


def open_loop(
    records: Iterable[Record],
    sender: Sender,
    *,
    total: int,
    rate: float,
    start_s: float,
    clock: Callable[[], float] = time.time,
) -> Run:
    """Send `total` records at `rate` a second from `start_s` (s since the epoch) on, come what may."""
    run = Run(stats=sender.stats)
    source = iter(records)

    def step() -> bool:
        due = min(total, int((clock() - start_s) * rate) + 1) if clock() >= start_s else 0
        while run.sent < due:
            batch = list(itertools.islice(source, min(_STEP, due - run.sent)))
            if not batch:
                return False
            run.lag_ms = max(run.lag_ms, int(clock() * 1000 - batch[0].at))
            sender.put(batch)
            run.sent += len(batch)
        if run.sent >= total:
            return False
        wait = start_s + run.sent / rate - clock()
        time.sleep(min(max(wait, TICK_S), 0.25))
        return True

    return _drive("generating", total, run, sender, step)


def paced(
    rows: Iterator[tuple[float, Callable[[float], Record]]],
    sender: Sender,
    *,
    start_s: float,
    size: int | None,
) -> Run:
    """Send each row when it is due: (seconds after `start_s`, record made for an intended time in s). inf: at once."""
    run = Run(stats=sender.stats)
    held: list[tuple[float, Callable[[float], Record]]] = []

    def step() -> bool:
        batch: list[Record] = []
        while len(batch) < _STEP:
            if not held and (row := next(rows, None)) is not None:
                held.append(row)
            if not held:
                sender.put(batch)
                run.sent += len(batch)
                return False
            due, make = held[0]
            now = time.time()
            intended = now if due < 0 else start_s + due
            if intended > now:
                break
            held.clear()
            if due >= 0:
                run.lag_ms = max(run.lag_ms, int((now - intended) * 1000))
            batch.append(make(intended))
        sender.put(batch)
        run.sent += len(batch)
        if held:
            time.sleep(min(max(start_s + held[0][0] - time.time(), TICK_S), 0.25))
        return True

    return _drive("replaying", size, run, sender, step)


def _drive(what: str, total: int | None, run: Run, sender: Sender, step: Callable[[], bool]) -> Run:
    """Call `step` until it says that nothing is left; then wait for the answers. Ctrl-C ends it early."""
    begun = time.monotonic()
    next_show = 0.0
    with Meter(what, total) as meter:

        def show() -> None:
            nonlocal next_show
            if (now := time.monotonic()) >= next_show:
                next_show = now + _SHOW_EVERY_S
                meter.show(sender.stats.done, _note(run, sender, meter.rate(sender.stats.done)))

        sender.on_wait = show
        try:
            while step():
                sender.check()
                show()
            while sender.backlog and sender.error is None:
                time.sleep(0.02)
                show()
        except KeyboardInterrupt:
            run.interrupted = True
        except BaseException:
            sender.close(0)
            raise
        meter.show(sender.stats.done, "waiting for the last answers")
        run.complete = sender.close(_LAST_WAIT_S if run.interrupted else None)
    run.seconds = time.monotonic() - begun
    return run


def _note(run: Run, sender: Sender, rate: float) -> str:
    stats = sender.stats
    note = f"{stats.done} answered, {rate:.0f}/s"
    backlog = sender.backlog
    if backlog > 2 * rate and backlog > 1000:
        note += f", {backlog} waiting"
    if run.lag_ms >= _BEHIND_MS:
        note += f", behind by up to {run.lag_ms / 1000:.1f} s"
    if stats.waiting:
        note += f", waiting for the target ({stats.waiting})"
    return note
