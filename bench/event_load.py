"""The load of events: all made beforehand, then written to the log on a fixed schedule, in a process of its own.

It shares the machine with what is measured and stands for other machines, so while it sends it does nothing else: no making, no truth
file (`./tide generate` has both). Open loop: record n is due at start + n / rate, however long the log takes. Prints `sending` when it
begins, and what it did at the end. `python -m bench.event_load`.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.generator import events
from clicktide import topics
from clicktide.errors import ClicktideError
from clicktide.log import open_log
from clicktide.log.port import LogProducer, Outgoing
from deploy.priority import GIVE_WAY_MORE, give_way

TICK_S = 0.01  # a request then holds several records, as a collector's do
_MAKING_S = 30e-6  # a record, with much to spare
_TIMEOUT_S = 15.0
_SEED = 7  # ids differ by the run all the same


@dataclass(frozen=True, slots=True)
class Sent:
    """`delays_ms`: from a tick's first record's intended time to the log's acceptance, sorted."""

    records: int
    seconds: float
    delays_ms: list[float]

    def line(self) -> str:
        """For a person."""

        def at(q: float) -> float:
            return self.delays_ms[int(q * (len(self.delays_ms) - 1))]

        return (
            f"{self.records} written in {self.seconds:.1f} s ({self.records / self.seconds:.0f}/s); from the intended time to the "
            f"acceptance p50 {at(0.5):.0f}, p99 {at(0.99):.0f}, max {at(1.0):.0f} ms"
        )


def send(
    records: Sequence[Outgoing],
    producer: LogProducer,
    rate: float,
    start_s: float,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Sent:
    """Writes the records at `rate` a second from `start_s` (s since the epoch) on. Raises `LogError`."""
    sent, delays = 0, []
    while sent < len(records):
        due = min(len(records), int((clock() - start_s) * rate) + 1)
        if due <= sent:
            sleep(max(0.0, start_s + sent / rate - clock()))
            continue
        producer.send(records[sent:due], _TIMEOUT_S)
        delays.append((clock() - start_s - sent / rate) * 1000)
        sent = due
        sleep(max(0.0, start_s + (sent - 1) / rate + TICK_S - clock()))
    return Sent(sent, clock() - start_s, sorted(delays))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.event_load", description=__doc__)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("-e", "--environment", required=True)
    given = parser.parse_args()
    from cli.context import settings_for

    give_way(GIVE_WAY_MORE)
    settings = settings_for(given.environment)
    topic = settings.text("topics.prefix") + topics.EVENTS
    count = max(1, round(given.rate * given.seconds))
    start_s = time.time() + 1.0 + count * _MAKING_S
    made = events(_SEED, rate=given.rate, start_ms=int(start_s * 1000), run=f"e{time.time_ns():x}")
    records = [Outgoing(topic, r.user_id.encode(), r.value) for r in itertools.islice(made, count)]
    gc.freeze()
    try:
        producer = open_log(settings).producer()
        time.sleep(max(0.0, start_s - time.time()))
        print("sending", flush=True)
        print(send(records, producer, given.rate, start_s).line())
        producer.close()
    except ClicktideError as e:
        sys.exit(f"event_load: {e}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
