"""The load of events: on its schedule, whatever the log takes."""

from __future__ import annotations

import pytest

from bench.event_load import TICK_S, Sent, send
from clicktide.errors import LogUnavailable
from clicktide.log.port import Outgoing


class Clock:
    """Time that passes when someone sleeps, or writes."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class Producer:
    """Takes so long (s) for each request."""

    def __init__(self, clock, takes=0.0):
        self.clock, self.takes, self.requests = clock, takes, []

    def send(self, records, timeout_s):
        self.requests.append((self.clock(), list(records)))
        self.clock.sleep(self.takes)


def sent_by(producer, records, rate, start):
    return send(records, producer, rate, start, producer.clock, producer.clock.sleep)


@pytest.fixture
def records():
    return [Outgoing("events", b"u", b"%d" % n) for n in range(1000)]


def test_each_record_is_sent_once_in_order_and_not_before_it_is_due(records):
    producer = Producer(Clock())
    found = sent_by(producer, records, 500, 1000.5)
    assert [r for _, part in producer.requests for r in part] == records
    n = 0
    for at, part in producer.requests:
        n += len(part)
        assert at >= 1000.5 + (n - 1) / 500 - 1e-6
    assert found.records == 1000
    assert found.seconds == pytest.approx(999 / 500, abs=2 * TICK_S)
    assert found.delays_ms[-1] <= TICK_S * 1000 + 1e-3


def test_a_slow_log_gets_more_at_a_time_and_its_slowness_is_counted(records):
    producer = Producer(Clock(), takes=0.1)
    found = sent_by(producer, records, 500, 1000.0)
    assert [r for _, part in producer.requests for r in part] == records
    assert max(len(part) for _, part in producer.requests) == pytest.approx(50, abs=1)
    assert found.seconds == pytest.approx(2.1, abs=0.11)
    assert found.delays_ms[len(found.delays_ms) // 2] == pytest.approx(200, abs=5)
    assert "1000 written" in found.line()


def test_a_log_that_is_away_ends_it(records):
    class Away(Producer):
        def send(self, records, timeout_s):
            raise LogUnavailable("away")

    with pytest.raises(LogUnavailable):
        sent_by(Away(Clock()), records, 500, 1000.0)


def test_its_line_has_what_one_wants_to_know():
    assert (
        Sent(100, 2.0, [1.0, 2.0, 30.0])
        .line()
        .endswith("(50/s); from the intended time to the acceptance p50 2, p99 2, max 30 ms")
    )
