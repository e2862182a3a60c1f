"""The retry policy: how often, how long and in which tier a failed stage is tried again, and when it is given up.

An immutable value; the clock and the random source are passed in. Its values come from `retry/policy.toml`, as settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from clicktide import topics
from clicktide.errors import SettingError
from clicktide.parse import CODES
from clicktide.settings import Settings

TIER_S = {"1s": 1.0, "10s": 10.0, "1m": 60.0, "10m": 600.0}

# What kind of failure it is decides what to do with it.
FATAL = "fatal"  # the event's own fault: dead at once
TRANSIENT = "transient"  # the store hiccupped: charged, next tier
STORE_WIDE = "store_wide"  # the store is away: parked, no attempt charged
UNKNOWN = "unknown"  # nobody knows: charged, but given up sooner
CLASSES = (FATAL, TRANSIENT, STORE_WIDE, UNKNOWN)

# Codes beside those of `parse`. Of `store_unavailable` the breaker knows better, so no file may say what class it is.
STORE_CODES = ("store_refused", "store", "id_conflict", "poison")

Uniform = Callable[[float, float], float]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where a failed event goes: `topic` without its prefix (a retry tier, or `dead`)."""

    topic: str
    attempt: int
    not_before: int
    code: str


@dataclass(frozen=True, slots=True)
class DeadLimits:
    """How much a stage may send to `dead`: past `burst` records in `window_s`, no more than `ratio` of its records. While it
    is stopped, one slice in `probe_s` goes through."""

    burst: int = 10_000
    ratio: float = 0.2
    window_s: float = 60.0
    probe_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Policy:
    """`attempts` are those charged; `deadline_s` counts from the first failure; times in seconds. `tiers` are those in use,
    `classes` the class of error codes where it is another than the caller's, `max_replays` the desk's."""

    attempts: int
    unknown_attempts: int
    deadline_s: float
    park_tier: str
    tiers: tuple[str, ...] = topics.TIERS
    classes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    dead: DeadLimits = DeadLimits()
    max_replays: int = 3

    def __post_init__(self) -> None:
        if not 1 <= self.unknown_attempts <= self.attempts:
            raise SettingError("setting retry.unknown_attempts: expected 1 up to retry.attempts")
        if self.park_tier not in self.tiers:
            raise SettingError(f"setting retry.park_tier: expected one of {', '.join(self.tiers)}")
        known = {*CODES, *STORE_CODES}
        for code in self.classes:
            if code not in known:
                raise SettingError(
                    f"setting retry.classes: expected one of {', '.join(sorted(known))}, got {code!r}"
                )

    def decide(
        self,
        kind: str,
        code: str,
        attempt: int,
        tier: str | None,
        first_failed_at: int,
        now_ms: int,
        uniform: Uniform,
        away_s: float = 0.0,
    ) -> Verdict:
        """What to do with an event whose stage failed just now.

        `attempt` and `tier` are what it had before (0 and None from the fresh path); `away_s` is for how long its store has been
        away, 0 where nobody knows. Full jitter: the wait is anything up to the tier's length (source: "Exponential Backoff and
        Jitter", AWS Architecture Blog, 2015).
        """
        kind = self.classes.get(code, kind)
        if kind == FATAL:
            return Verdict(topics.DEAD, attempt, 0, code)
        if kind == STORE_WIDE:
            parked = self._park(tier, away_s)
            return Verdict(f"retry.{parked}", attempt, now_ms + self._wait(parked, uniform), code)
        charged = attempt + 1
        limit = self.unknown_attempts if kind == UNKNOWN else self.attempts
        if charged > limit or now_ms - first_failed_at > self.deadline_s * 1000:
            return Verdict(topics.DEAD, charged, 0, "exhausted")
        chosen = self.tiers[min(attempt, len(self.tiers) - 1)]
        return Verdict(f"retry.{chosen}", charged, now_ms + self._wait(chosen, uniform), code)

    def _park(self, tier: str | None, away_s: float) -> str:
        """The first tier, up to `park_tier`, that is no shorter than the store has been away, and longer than the one it comes
        from: what comes back after a second is there again after a second, and a dead store's backlog is written once."""
        length = 0.0 if tier is None else TIER_S[tier]  # of a tier that may be in use no more
        longer = [
            t for t in self.tiers if length < TIER_S[t] and away_s <= TIER_S[t] <= TIER_S[self.park_tier]
        ]
        return longer[0] if longer else self.park_tier

    @staticmethod
    def _wait(tier: str, uniform: Uniform) -> int:
        return int(uniform(0, TIER_S[tier] * 1000))


def from_settings(settings: Settings) -> Policy:
    """The policy of these settings; raises `SettingError` when it contradicts itself."""
    deadline_h = settings.number("retry.deadline_h")
    if deadline_h >= settings.number("topics.retention_h"):
        raise SettingError("setting retry.deadline_h: expected less than topics.retention_h")
    if settings.number("retry.hold_s") * 2 >= settings.number("topics.retention_h") * 3600:
        # What is held is not written anew, and so grows old.
        raise SettingError("setting retry.hold_s: expected less than half of topics.retention_h")
    return Policy(
        attempts=settings.integer("retry.attempts"),
        unknown_attempts=settings.integer("retry.unknown_attempts"),
        deadline_s=deadline_h * 3600,
        park_tier=settings.text("retry.park_tier"),
        tiers=tuple(settings.text("retry.tiers").split()),
        classes=MappingProxyType(dict(word.split("=", 1) for word in settings.text("retry.classes").split())),
        dead=DeadLimits(
            burst=settings.integer("retry.dead_burst"),
            ratio=settings.number("retry.dead_ratio"),
            window_s=settings.number("retry.dead_window_s"),
            probe_s=settings.number("retry.dead_probe_s"),
        ),
        max_replays=settings.integer("retry.max_replays"),
    )


def longest_wait_ms(topic: str) -> int:
    """How long a record of this retry topic may have to wait at most (ms): its tier's length."""
    return int(TIER_S.get(topic.rpartition(".")[2], max(TIER_S.values())) * 1000)
