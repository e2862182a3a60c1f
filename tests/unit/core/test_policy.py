"""The retry policy: every class, every limit, and the wait's bounds."""

from __future__ import annotations

import pytest
from unit.core.making import NOW

from clicktide import topics
from clicktide.errors import SettingError
from clicktide.retry.policy import (
    CLASSES,
    FATAL,
    STORE_WIDE,
    TIER_S,
    TRANSIENT,
    UNKNOWN,
    Policy,
    from_settings,
)
from clicktide.settings import Settings

POLICY = Policy(attempts=8, unknown_attempts=4, deadline_s=3600.0, park_tier="1m")


def most(_low, high):
    return high


def least(low, _high):
    return low


def decide(
    kind,
    attempt=0,
    tier=None,
    first_failed_at=NOW,
    now=NOW,
    uniform=most,
    code="store_unavailable",
    away_s=0.0,
):
    return POLICY.decide(kind, code, attempt, tier, first_failed_at, now, uniform, away_s)


def test_the_events_own_fault_is_dead_at_once():
    assert decide(FATAL, code="id_conflict") == (v := decide(FATAL, attempt=0, code="id_conflict"))
    assert (v.topic, v.attempt, v.not_before, v.code) == (topics.DEAD, 0, 0, "id_conflict")
    assert decide(FATAL, attempt=3).attempt == 3


@pytest.mark.parametrize(("kind", "limit"), [(TRANSIENT, 8), (UNKNOWN, 4)])
def test_charged_attempts_climb_the_tiers_and_end(kind, limit):
    attempt, tier, seen = 0, None, []
    while (verdict := decide(kind, attempt, tier)).topic != topics.DEAD:
        assert verdict.attempt == attempt + 1
        assert verdict.code == "store_unavailable"
        attempt, tier = verdict.attempt, verdict.topic.removeprefix("retry.")
        seen.append(tier)
        assert len(seen) <= limit
    assert seen == ["1s", "10s", "1m", "10m", "10m", "10m", "10m", "10m"][:limit]
    assert verdict.code == "exhausted"


@pytest.mark.parametrize("kind", [TRANSIENT, UNKNOWN])
def test_the_deadline_counts_from_the_first_failure(kind):
    edge = NOW - 3_600_000
    assert decide(kind, attempt=1, first_failed_at=edge).topic == "retry.10s"
    late = decide(kind, attempt=1, first_failed_at=edge - 1)
    assert (late.topic, late.code) == (topics.DEAD, "exhausted")


def test_a_store_that_is_away_charges_nothing():
    tier, seen = None, []
    for _ in range(50):
        verdict = decide(STORE_WIDE, attempt=8, tier=tier)
        assert verdict.attempt == 8
        tier = verdict.topic.removeprefix("retry.")
        seen.append(tier)
    assert seen[:4] == ["1s", "10s", "1m", "1m"]
    assert set(seen[2:]) == {"1m"}, "never past park_tier, never dead"


def test_parking_comes_down_from_a_tier_above():
    assert decide(STORE_WIDE, tier="10m").topic == "retry.1m"


@pytest.mark.parametrize(
    ("away_s", "tier", "parked"),
    [
        (0.0, None, "1s"),
        (1.0, None, "1s"),
        (1.1, None, "10s"),
        (10.0, None, "10s"),
        (10.1, None, "1m"),
        (86_400.0, None, "1m"),
        (0.5, "1s", "10s"),
        (11.0, "1s", "1m"),
        (0.0, "10s", "1m"),
        (0.5, "1m", "1m"),
        (30.0, "10m", "1m"),
    ],
)
def test_parked_by_how_long_the_store_has_been_away(away_s, tier, parked):
    """A hiccup's records are back as soon as ever; a dead store's are written about once."""
    verdict = decide(STORE_WIDE, tier=tier, away_s=away_s)
    assert verdict.topic == f"retry.{parked}"
    assert verdict.attempt == 0


def test_only_what_is_parked_goes_by_how_long_the_store_has_been_away():
    assert decide(TRANSIENT, away_s=3600.0).topic == "retry.1s"


@pytest.mark.parametrize("kind", [TRANSIENT, STORE_WIDE, UNKNOWN])
def test_full_jitter(kind):
    for attempt, tier in enumerate([None, *topics.TIERS[:3]]):
        asked = []

        def uniform(low, high, asked=asked):
            asked.append((low, high))
            return high / 2

        verdict = decide(kind, min(attempt, 3), tier, uniform=uniform)
        length = TIER_S[verdict.topic.removeprefix("retry.")] * 1000
        assert asked == [(0, length)]
        assert verdict.not_before == NOW + length // 2
    assert decide(kind, uniform=least).not_before == NOW
    assert isinstance(decide(kind, uniform=lambda _a, b: b / 3).not_before, int)


def test_every_class_is_decided():
    assert {kind: decide(kind).topic for kind in CLASSES} == {
        FATAL: "dead",
        TRANSIENT: "retry.1s",
        STORE_WIDE: "retry.1s",
        UNKNOWN: "retry.1s",
    }
    assert tuple(TIER_S) == topics.TIERS


def test_a_policy_that_contradicts_itself_is_refused():
    with pytest.raises(SettingError, match=r"retry\.unknown_attempts"):
        Policy(attempts=2, unknown_attempts=3, deadline_s=1, park_tier="1s")
    with pytest.raises(SettingError, match=r"retry\.park_tier"):
        Policy(attempts=2, unknown_attempts=1, deadline_s=1, park_tier="2s")
    with pytest.raises(SettingError, match=r"retry\.deadline_h"):
        from_settings(Settings({"retry.deadline_h": 168, "topics.retention_h": 168}))
    with pytest.raises(SettingError, match=r"retry\.hold_s"):
        from_settings(Settings({"retry.hold_s": 84 * 3600, "topics.retention_h": 168}))


def test_from_settings():
    given = {
        "retry.attempts": 5,
        "retry.unknown_attempts": 2,
        "retry.deadline_h": 0.5,
        "retry.park_tier": "10s",
    }
    assert from_settings(Settings(given)) == Policy(5, 2, 1800.0, "10s")
