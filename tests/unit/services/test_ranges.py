"""Ranges of time: which buckets answer for what a caller asks."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clicktide.read.spans import MAX_BUCKETS, Span, choose, covering, dense, kept, slid, total
from clicktide.settings import Settings
from services.problems import ProblemError
from services.query.ranges import Asked, RangeQuery, asked, duration, moment

KEEPS = kept(Settings({}))
NOW = 1_700_000_000_000 + 12_345
RECENT = covering("s", NOW - 60_000, NOW)


def ask(**given):
    given = {"from_" if k == "from" else k: v for k, v in given.items()}
    return asked(RangeQuery(**given), NOW, KEEPS, "s", RECENT)


def refused(**given):
    with pytest.raises(ProblemError) as e:
        ask(**given)
    assert e.value.code == "bad_parameter"
    return e.value.extra["parameter"]


def test_nothing_asked_is_all_time_and_the_recent_series():
    assert ask() == Asked(RECENT, whole=True)
    assert ask().range_ms is None


def test_a_short_window_takes_seconds_a_long_one_minutes_hours_days():
    assert [ask(window=w).span.granularity for w in ("1m", "5m", "10m", "5h", "10h", "12d", "20d")] == list(
        "ssmmhhd"
    )


@pytest.mark.parametrize("window", ["30s", "5m", "10m", "3h", "2d"])
def test_a_window_has_exactly_its_length_and_its_last_bucket_is_the_running_one(window):
    start, end = ask(window=window).range_ms
    assert end - start == duration("window", window) * 1000
    assert end - ask(window=window).span.step * 1000 <= NOW < end


def test_from_and_to_are_widened_to_whole_buckets():
    assert ask(**{"from": "1700000000500", "to": "1700000001500"}).range_ms == (1700000000000, 1700000002000)


def test_seconds_that_are_not_kept_any_more_are_answered_from_minutes():
    day_ago = NOW - 86_400_000
    got = ask(**{"from": str(day_ago), "to": str(day_ago + 10_000)})
    assert got.span.granularity == "m"
    assert got.range_ms[0] <= day_ago < day_ago + 10_000 <= got.range_ms[1]


def test_rfc_3339_with_offset_also_with_the_plus_lost():
    assert moment("from", "2023-11-14T22:13:20Z") == 1_700_000_000_000
    assert moment("from", "2023-11-15T06:13:20+08:00") == 1_700_000_000_000
    assert moment("from", "2023-11-15T06:13:20 08:00") == 1_700_000_000_000


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"window": "10"}, "window"),
        ({"window": "0s"}, "window"),
        ({"window": "9999999d"}, "window"),
        ({"slide": "2m"}, "slide"),
        ({"window": "10m", "slide": "3m"}, "slide"),
        ({"window": "10m", "from": "1"}, "from"),
        ({"from": "2023-11-14T22:13:20"}, "from"),
        ({"to": "yesterday"}, "to"),
        ({"from": "2000", "to": "1000"}, "from"),
        ({"window": "10m", "slide": "1s"}, "slide"),
    ],
)
def test_what_cannot_be_understood_names_the_parameter(given, name):
    assert refused(**given) == name


def test_sliding_windows_cover_one_window_s_length_and_end_at_multiples_of_slide():
    got = ask(window="10m", slide="2m")
    assert (got.window, got.slide, got.span.granularity) == (600, 120, "m")
    assert got.span.end % 120 == 0
    assert got.range_ms == ((got.span.end - 600) * 1000, got.span.end * 1000)
    points = slid(dense(got.span, {}, ["n"]), got.span.step, 600, 120, ["n"])
    assert len(points) == 5
    assert points[-1]["at"] == got.range_ms[0]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=12, max_size=40))
def test_slid_is_the_plain_sum_of_each_window(values):
    span = Span("s", 120, len(values))
    points = dense(span, {120 + i: {"n": v} for i, v in enumerate(values)}, ["n"])
    got = slid(points, 1, 6, 3, ["n"])
    assert [p["at"] for p in got] == [1000 * s for s in range(120, 120 + len(values) - 5) if s % 3 == 0]
    for p in got:
        i = p["at"] // 1000 - 120
        assert p["n"] == sum(values[i : i + 6])
    assert total(points, ["n"]) == {"n": sum(values)}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, NOW), st.integers(1, 400 * 86_400_000))
def test_a_chosen_span_covers_the_range_or_is_cut_to_what_is_kept(start, length):
    end = min(start + length, NOW)
    if end <= start:
        return
    span = choose(start, end, NOW, KEEPS)
    assert span.size <= MAX_BUCKETS or span.granularity == "d"
    assert span.start % span.step == 0
    if start >= NOW - 86_400_000 * 100:
        assert span.start * 1000 <= start
        assert span.end * 1000 >= end
