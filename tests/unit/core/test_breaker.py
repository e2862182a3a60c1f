"""Breaker: opens after failures in a row, probes once a while, closes on one success. The clock is the test's."""

from __future__ import annotations

from unit.core.making import Clock

from clicktide.breaker import CLOSED, HALF_OPEN, OPEN, Breaker, Breakers


def opened(clock):
    breaker = Breaker(clock, failures_to_open=3, probe_s=5.0)
    for _ in range(3):
        assert breaker.allows()
        breaker.failed()
    return breaker


def test_opens_after_failures_in_a_row():
    breaker = Breaker(Clock(), 3, 5.0)
    for outcome in (breaker.failed, breaker.failed, breaker.succeeded, breaker.failed, breaker.failed):
        outcome()
        assert breaker.state == CLOSED
    breaker.failed()
    assert breaker.state == OPEN
    assert not breaker.allows()


def test_how_long_it_has_been_away_counts_from_the_first_failure():
    clock = Clock()
    breaker = Breaker(clock, 2, 5.0)
    breaker.failed()
    clock.pass_(3.0)
    assert breaker.away_s == 0.0, "a hiccup, for all one knows"
    breaker.failed()
    assert breaker.away_s == 3.0
    clock.pass_(60.0)
    assert breaker.allows()
    breaker.failed()
    assert breaker.away_s == 63.0, "a probe that fails is no new outage"
    breaker.succeeded()
    assert breaker.away_s == 0.0
    clock.pass_(10.0)
    breaker.failed()
    breaker.failed()
    assert breaker.away_s == 0.0, "this one has just begun"


def test_one_probe_each_probe_time():
    clock = Clock()
    breaker = opened(clock)
    clock.pass_(4.999)
    assert not breaker.allows()
    clock.pass_(0.001)
    assert breaker.allows()
    assert breaker.state == HALF_OPEN
    assert not breaker.allows(), "the probe is under way"
    clock.pass_(5.0)
    assert breaker.allows(), "a probe that never came back does not close the way for ever"


def test_a_probe_that_fails_waits_the_full_time_again():
    clock = Clock()
    breaker = opened(clock)
    clock.pass_(5.0)
    breaker.allows()
    clock.pass_(2.0)
    breaker.failed()
    assert breaker.state == OPEN
    clock.pass_(4.9)
    assert not breaker.allows()
    clock.pass_(0.1)
    assert breaker.allows()


def test_a_probe_that_succeeds_closes_and_forgets():
    clock = Clock()
    breaker = opened(clock)
    clock.pass_(5.0)
    breaker.allows()
    breaker.succeeded()
    assert breaker.state == CLOSED
    breaker.failed()
    breaker.failed()
    assert breaker.state == CLOSED, "the failures before it opened count no more"


def test_each_store_has_its_own():
    clock = Clock()
    breakers = Breakers(clock, 1, 5.0)
    breakers.of("mysql.0").failed()
    assert breakers.of("mysql.0") is breakers.of("mysql.0")
    assert not breakers.of("mysql.0").allows()
    assert breakers.of("mysql.1").allows()
    assert breakers.states() == {"mysql.0": OPEN}


def test_a_store_that_nobody_has_asked_of_late_is_not_reported_as_away():
    clock = Clock()
    breaker = opened(clock)
    clock.pass_(29.0)
    assert breaker.reported() == OPEN
    clock.pass_(2.0)
    assert (breaker.reported(), breaker.state) == (CLOSED, OPEN)
    assert breaker.allows()
    breaker.failed()
    assert breaker.reported() == OPEN, "it was asked just now"


def test_only_what_is_reported_as_open_is_among_the_states():
    clock = Clock()
    breakers = Breakers(clock, 1, 5.0)
    breakers.of("redis").failed()
    clock.pass_(25.0)
    breakers.of("mysql.0").failed()
    assert breakers.states() == {"redis": OPEN, "mysql.0": OPEN}
    clock.pass_(10.0)
    assert breakers.states() == {"mysql.0": OPEN}
