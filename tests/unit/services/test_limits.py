"""Token bucket and room."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.access.limits import TokenBucket
from services.collector.limits import Room
from services.problems import ProblemError


def test_no_limit_never_refuses():
    assert all(TokenBucket(0, 1).take(10**6, now) == 0 for now in range(5))


def test_a_burst_passes_then_the_rate_holds():
    bucket = TokenBucket(10, 10)
    assert bucket.take(10, 0.0) == 0
    assert bucket.take(1, 0.0) == pytest.approx(0.1)
    assert bucket.take(1, 0.1) == 0


def test_a_request_larger_than_the_burst_passes_once_and_is_paid_for():
    bucket = TokenBucket(10, 10)
    assert bucket.take(30, 0.0) == 0
    assert bucket.take(1, 1.0) == pytest.approx(1.1)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 50), st.floats(0, 2)), max_size=50))
def test_over_any_time_no_more_than_rate_and_burst_passes(steps):
    bucket, now, passed = TokenBucket(20, 20), 0.0, 0
    for events, wait in steps:
        now += wait
        if bucket.take(events, now) == 0:
            passed += events
    assert passed <= 20 + 20 * now + 50


def test_a_room_gives_back_what_was_taken():
    room = Room(100)
    with room.held() as take:
        take(60)
        with pytest.raises(ProblemError), room.held() as other:
            other(50)
        assert room.used == 60
    assert room.used == 0


def test_a_single_upload_always_fits():
    with Room(10).held() as take:
        take(50)
        take(50)
