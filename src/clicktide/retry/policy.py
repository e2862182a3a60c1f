"""The retry policy: how often, how long and in which tier a failed stage is tried again, and when it is given up.

An immutable value; the clock and the random source are passed in. Its values come from `retry/policy.toml`, as settings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from clicktide import topics
from clicktide.errors import SettingError
from clicktide.settings import Settings

TIER_S = {"1s": 1.0, "10s": 10.0, "1m": 60.0, "10m": 600.0}

# What kind of failure it is decides what to do with it.
FATAL = "fatal"  # the event's own fault: dead at once
TRANSIENT = "transient"  # the store hiccupped: charged, next tier
STORE_WIDE = "store_wide"  # the store is away: parked, no attempt charged
UNKNOWN = "unknown"  # nobody knows: charged, but given up sooner
CLASSES = (FATAL, TRANSIENT, STORE_WIDE, UNKNOWN)

Uniform = Callable[[float, float], float]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where a failed event goes: `topic` without its prefix (a retry tier, or `dead`)."""

    topic: str
    attempt: int
    not_before: int
    code: str


@dataclass(frozen=True, slots=True)
class Policy:
    """`attempts` are those charged; `deadline_s` counts from the first failure; times in seconds."""

    attempts: int
    unknown_attempts: int
    deadline_s: float
    park_tier: str

    def __post_init__(self) -> None:
        if not 1 <= self.unknown_attempts <= self.attempts:
            raise SettingError("setting retry.unknown_attempts: expected 1 up to retry.attempts")
        if self.park_tier not in TIER_S:
            raise SettingError(f"setting retry.park_tier: expected one of {', '.join(TIER_S)}")

    def decide(
        self,
        kind: str,
        code: str,
        attempt: int,
        tier: str | None,
        first_failed_at: int,
        now_ms: int,
        uniform: Uniform,
    ) -> Verdict:
        """What to do with an event whose stage failed just now.

        `attempt` and `tier` are what it had before (0 and None from the fresh path). Full jitter: the wait is anything up
        to the tier's length (source: "Exponential Backoff and Jitter", AWS Architecture Blog, 2015).
        """
        if kind == FATAL:
            return Verdict(topics.DEAD, attempt, 0, code)
        if kind == STORE_WIDE:
            parked = self._park(tier)
            return Verdict(f"retry.{parked}", attempt, now_ms + self._wait(parked, uniform), code)
        charged = attempt + 1
        limit = self.unknown_attempts if kind == UNKNOWN else self.attempts
        if charged > limit or now_ms - first_failed_at > self.deadline_s * 1000:
            return Verdict(topics.DEAD, charged, 0, "exhausted")
        chosen = topics.TIERS[min(attempt, len(topics.TIERS) - 1)]
        return Verdict(f"retry.{chosen}", charged, now_ms + self._wait(chosen, uniform), code)

    def _park(self, tier: str | None) -> str:
        """One tier up each time, as far as `park_tier`: a dead store's backlog is not rewritten every second."""
        after = 0 if tier is None else topics.TIERS.index(tier) + 1
        return topics.TIERS[min(after, topics.TIERS.index(self.park_tier))]

    @staticmethod
    def _wait(tier: str, uniform: Uniform) -> int:
        return int(uniform(0, TIER_S[tier] * 1000))


def from_settings(settings: Settings) -> Policy:
    """The policy of these settings; raises `SettingError` when it contradicts itself."""
    deadline_h = settings.number("retry.deadline_h")
    if deadline_h >= settings.number("topics.retention_h"):
        raise SettingError("setting retry.deadline_h: expected less than topics.retention_h")
    return Policy(
        attempts=settings.integer("retry.attempts"),
        unknown_attempts=settings.integer("retry.unknown_attempts"),
        deadline_s=deadline_h * 3600,
        park_tier=settings.text("retry.park_tier"),
    )
