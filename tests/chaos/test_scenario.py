"""Scenarios, and what their probes say by phase."""

from __future__ import annotations

import json

import pytest

from bench.chaos import embedded, stack
from bench.chaos.plan import AWAY, LOCK
from bench.chaos.probes import Parked, percentile, phases
from bench.chaos.report import Outcome, phase_lines
from bench.chaos.scenario import SCENARIOS


@pytest.mark.parametrize(
    ("env", "kind", "target"), [("stack", AWAY, "mariadb-2"), ("embedded", LOCK, "shard-1")]
)
def test_a_shard_is_away_three_times_as_long_as_before_and_after(env, kind, target):
    made = SCENARIOS["shard-away"](env, 60)
    (fault,) = made.faults
    assert (fault.kind, fault.target, fault.at, fault.seconds) == (kind, target, 80, 180)
    assert target in {"stack": stack, "embedded": embedded}[env].targets()[kind]
    assert made.phases == {"before": (20, 80), "away": (80, 260), "after": (260, 320)}
    assert made.seconds == 320


def test_probes_are_sorted_into_phases_by_when_they_were_due():
    lines = [json.dumps({"due": 100 + i, "ms": 10.0 * (i + 1)}) for i in range(10)]
    lines.append(json.dumps({"due": 105.5, "ms": None}))
    found = phases(lines, {"before": (100, 105), "away": (105, 200)})
    assert found["before"] == {"probes": 5, "never": 0, "p50_ms": 30, "p99_ms": 50}
    assert found["away"] == {"probes": 6, "never": 1, "p50_ms": 80, "p99_ms": 100}


def test_retry_writes_are_counted_by_phase():
    """One border comes while the log is away, and is asked for until it is there."""
    answers = iter([10, None, 25, 40])
    parked = Parked({"before": (20, 40), "away": (40, 100)}, lambda: next(answers))
    for now in (0.0, 20.1, 40.0, 40.5, 60.0, float("inf")):
        parked.look(now)
    assert parked.counts() == {"before": 15, "away": 15}


def test_a_phase_whose_border_nobody_knew_has_no_count():
    parked = Parked({"before": (20, 40)}, lambda: None)
    parked.look(50.0)
    assert parked.counts() == {}


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
    found["before"]["retried"] = 6789
    (line,) = phase_lines(Outcome("stack", 1, 320, phases=found))
    assert line.endswith("1 never seen, 6,789 records written to retry topics")
