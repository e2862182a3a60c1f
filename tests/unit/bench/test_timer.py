"""The timer: counts what has passed, at any time it is asked."""

from __future__ import annotations

import select
import time

import pytest

from bench.timer import Timer


def readable(timer: Timer, wait_ms: int) -> bool:
    poll = select.poll()
    poll.register(timer.fd, select.POLLIN)
    return bool(poll.poll(wait_ms))


@pytest.fixture
def timers():
    made: list[Timer] = []

    def make(first: float, interval: float) -> Timer:
        made.append(Timer(first, interval))
        return made[-1]

    yield make
    for timer in made:
        timer.close()


def test_it_counts_from_its_first_time_on(timers):
    timer = timers(time.monotonic() - 1.0, 0.3)
    assert readable(timer, 5000)
    assert timer.passed() >= 4  # after 0, 0.3, 0.6 and 0.9 s
    counted = timer.passed()
    assert readable(timer, 5000)
    assert timer.passed() > counted


def test_nothing_has_passed_before(timers):
    timer = timers(time.monotonic() + 3600.0, 0.001)
    assert not readable(timer, 0)
    assert timer.passed() == 0
