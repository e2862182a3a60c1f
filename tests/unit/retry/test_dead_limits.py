"""Limits on dead letters, with a clock that stands still: when a stage stops, what gets through, when it starts again."""

from __future__ import annotations

import pytest

from clicktide.log.port import TopicPartition
from clicktide.retry.dead_limits import Meter, group
from clicktide.retry.policy import DeadLimits

P = TopicPartition("tide.events", 0)
LIMITS = DeadLimits(burst=100, ratio=0.2, window_s=60.0, probe_s=30.0)


def write(meter, offsets, now, stage="parse", *, among_all=True):
    admitted = meter.admits(stage, P, offsets, now, among_all=among_all)
    if admitted:
        meter.wrote(stage, P, offsets, now)
    return admitted


def stopped_meter(now=0.0):
    meter = Meter(LIMITS)
    assert write(meter, range(100), now)
    assert not write(meter, range(100, 150), now)
    return meter


@pytest.mark.parametrize("every", [20, 100, 1000])
def test_five_percent_and_less_never_stop_it_however_fast(every):
    meter = Meter(LIMITS)
    for n in range(2000):
        assert write(meter, [n * every], now=n * 0.001)


def test_a_burst_of_nothing_else_stops_it_at_the_limit():
    meter = Meter(LIMITS)
    assert sum(10 for n in range(600) if write(meter, range(n * 10, n * 10 + 10), n * 0.05)) == 100


def test_stages_are_stopped_apart():
    meter = stopped_meter()
    assert write(meter, [5], 0.0, "redis")
    assert set(meter.stopped(0.0)) == {"parse"}


def test_what_was_written_long_ago_does_not_count():
    meter = Meter(LIMITS)
    assert write(meter, range(100), 0.0)
    assert write(meter, range(100, 200), 60.0)


def test_one_call_a_probe_time_gets_through():
    meter = stopped_meter()
    assert [t for t in range(1, 100) if write(meter, range(100, 150), float(t))] == [30, 60, 90]


def test_it_starts_again_after_a_window_in_which_nothing_was_refused():
    meter = stopped_meter()
    assert meter.stopped(59.9)
    assert meter.stopped(60.0) == {}
    assert write(meter, range(200, 300), 60.0)
    assert not write(meter, range(300, 301), 60.0), "and counts anew"


def test_an_operator_starts_it_again():
    meter = stopped_meter()
    meter.resume("parse")
    assert meter.stopped(0.0) == {}
    assert write(meter, range(100, 150), 0.0)


def test_in_a_retry_topic_only_the_burst_counts():
    """All of it has failed before: that the dead lie far apart says nothing."""
    meter = Meter(LIMITS)
    done = [write(meter, [n * 1000], 0.0, "mysql", among_all=False) for n in range(101)]
    assert done == [True] * 100 + [False]


def test_a_slice_that_comes_again_makes_no_records():
    """Else replays would dilute the ratio, and hide the burst."""
    meter = Meter(LIMITS)
    assert write(meter, range(60), 0.0)
    assert write(meter, range(40), 0.0)
    assert not write(meter, range(30), 0.0)


@pytest.mark.parametrize(
    ("stage", "name"), [("mysql.17", "mysql"), ("parse", "parse"), ("", "unknown"), ("redis", "redis")]
)
def test_the_shards_of_a_store_are_counted_together(stage, name):
    assert group(stage) == name
