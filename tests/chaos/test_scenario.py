"""Scenarios, and what their probes say by phase."""

from __future__ import annotations

import json

import pytest

from bench.chaos.plan import AWAY
from bench.chaos.probes import percentile, phases
from bench.chaos.report import Outcome, phase_lines
from bench.chaos.scenario import SCENARIOS


def test_a_shard_is_away_three_times_as_long_as_before_and_after():
    made = SCENARIOS["shard-away"](60)
    (fault,) = made.faults
    assert (fault.kind, fault.target, fault.at, fault.seconds) == (AWAY, "mariadb-2", 80, 180)
    assert made.phases == {"before": (20, 80), "away": (80, 260), "after": (260, 320)}
    assert made.seconds == 320


def test_probes_are_sorted_into_phases_by_when_they_were_due():
    lines = [json.dumps({"due": 100 + i, "ms": 10.0 * (i + 1)}) for i in range(10)]
    lines.append(json.dumps({"due": 105.5, "ms": None}))
    found = phases(lines, {"before": (100, 105), "away": (105, 200)})
    assert found["before"] == {"probes": 5, "never": 0, "p50_ms": 30, "p99_ms": 50}
    assert found["away"] == {"probes": 6, "never": 1, "p50_ms": 80, "p99_ms": 100}


def test_a_phase_without_probes_is_no_good_news():
    assert percentile([], 0.99) == float("inf")


@pytest.mark.parametrize(("count", "q", "wanted"), [(1, 0.5, 0), (100, 0.99, 99), (100, 0.5, 50)])
def test_percentiles(count, q, wanted):
    assert percentile([float(i) for i in reversed(range(count))], q) == wanted


def test_phases_are_told_a_line_each():
    found = {"before": {"probes": 1200, "never": 1, "p50_ms": 40, "p99_ms": 1230}}
    assert phase_lines(Outcome("stack", 1, 320, phases=found)) == [
        "before: p50 40 ms, p99 1,230 ms of 1200 probes, 1 never seen"
    ]
