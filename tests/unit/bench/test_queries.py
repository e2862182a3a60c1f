"""What the benchmark of queries makes of the service's own buckets."""

from __future__ import annotations

import pytest

from bench.bench_queries import _within, percentile


def test_only_what_was_answered_meanwhile_counts():
    before = {0.001: 10.0, 0.006: 40.0, float("inf"): 50.0}
    after = {0.001: 10.0, 0.006: 130.0, float("inf"): 150.0}
    assert _within(before, after) == {0.001: 0.0, 0.006: 0.9, float("inf"): 1.0}


def test_of_nothing_there_are_no_shares():
    assert _within({}, {}) == {}
    assert _within({0.001: 5.0}, {0.001: 5.0}) == {}


def test_a_percentile_of_nothing_is_not_a_number_to_be_proud_of():
    assert percentile([], 0.99) == float("inf")
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == pytest.approx(3.0)
