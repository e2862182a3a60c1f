"""The checks of Redis: timelines against SQL, buckets against the sums of all rows in SQL, and against the truth."""

from __future__ import annotations

from collections.abc import Iterator

from bench.ledger.expected import Content, Expected
from bench.ledger.redis_side import Entry, RedisSide
from bench.ledger.report import Check, compare, money
from bench.ledger.sql_checks import Sides
from bench.ledger.sql_side import UserEvents
from bench.ledger.sums import DAY, HOUR, MINUTE, SECOND, Buckets, Fields, Sums

_SIZES = (("second", "s", SECOND), ("minute", "m", MINUTE), ("hour", "h", HOUR), ("day", "d", DAY))
_MONEY = ("gmv", "refunds")


def timelines(sides: Sides, redis: RedisSide, length: int, ttl_ms: int, now_ms: int) -> Iterator[Check]:
    """Per user: the newest events, each once, in order of time, saying what was sent."""
    wrong: list[str] = []
    entries = 0
    unreadable = set(redis.unreadable)
    for user, stored in sides.sql.users.items():
        if not stored.newest or now_ms - stored.last_received > ttl_ms - 60_000:
            continue  # nothing stored (see above), or old enough to have left Redis
        found = redis.timelines.get(user, [])
        entries += len(found)
        problem = "has members that are no rows" if user in unreadable else None
        problem = problem or _timeline_problem(sides, stored, found, length)
        if problem is not None:
            wrong.append(f"user {user} {problem}")
    users = len(sides.sql.users)
    yield compare(f"users' timelines ({entries} entries)", users, users - len(wrong), wrong)


def _timeline_problem(sides: Sides, stored: UserEvents, found: list[Entry], length: int) -> str | None:
    by_id = {entry.event_id: entry for entry in found}
    if len(by_id) != len(found):
        seen: set[str] = set()
        twice = next(e.event_id for e in found if e.event_id in seen or seen.add(e.event_id))  # type: ignore[func-returns-value]
        return f"has {twice} twice"
    if len(found) > length:
        return f"has {len(found)} entries, at most {length} are kept"
    rows = {event_id: at for at, event_id in stored.newest}
    full = len(found) >= length
    oldest = min((entry.score for entry in found), default=0)
    for event_id, at in rows.items():
        entry = by_id.get(event_id)
        if entry is None:
            # Of equally old ones, which of them fell off the end is nobody's promise.
            if (full and at <= oldest) or sides.dead.failed_at(event_id, "redis"):
                continue
            return f"lacks {event_id}"
        problem = _entry_problem(sides.expected, entry, at)
        if problem is not None:
            return problem
    lowest = stored.newest[-1][0] if len(rows) >= length else 0
    for event_id, entry in by_id.items():
        if (
            event_id not in rows
            and entry.occurred_at > lowest
            and not sides.dead.failed_at(event_id, "mysql")
        ):
            return f"has {event_id}, which SQL has not"
    return None


def _entry_problem(expected: Expected, entry: Entry, stored_at: int) -> str | None:
    if entry.score != entry.occurred_at:
        return f"has {entry.event_id} of {entry.occurred_at} at {entry.score}"
    fact = expected.facts.get(entry.event_id)
    if fact is None:
        # Of an event that is not the truth's nobody knows at which times it was sent; and with two, either may hold (docs/chaos.md).
        return None
    if entry.occurred_at not in {stored_at, *expected.times(entry.event_id)}:
        return f"has {entry.event_id} at {entry.occurred_at}, SQL at {stored_at}"
    if _content(entry) != fact.content:
        return f"has {entry.event_id} with other content than was sent"
    return None


def _content(entry: Entry) -> Content:
    return entry.content


def totals(name: str, expected: Fields, redis: RedisSide) -> Check:
    """The counters of all time; every field must be equal."""
    return compare(
        name, _sketch(expected), _sketch(redis.totals), _fields_that_differ(expected, redis.totals)
    )


def _sketch(fields: Fields) -> str:
    events = sum(n for name, n in fields.items() if name.startswith("n:"))
    return f"{events} events, late {fields.get('late', 0)}, GMV {money(fields.get('gmv', 0))}"


def buckets(source: str, expected: Sums, redis: RedisSide, kept: dict[str, int]) -> Iterator[Check]:
    """Buckets of every size within the truth's range; `kept`: the first start (s) of each that must still be there."""
    for word, granularity, size in _SIZES:
        first = kept[granularity]
        should = {s: fields for s, fields in expected.buckets(size).items() if s >= first}
        found = {s: fields for s, fields in redis.buckets[granularity].items() if s >= first}
        if should or found:
            yield compare(
                f"{word} buckets equal {source}",
                _sum(should),
                _sum(found),
                _buckets_that_differ(should, found),
            )


def _sum(found: Buckets) -> str:
    events = sum(n for fields in found.values() for name, n in fields.items() if name.startswith("n:"))
    gmv, refunds = (sum(fields.get(name, 0) for fields in found.values()) for name in _MONEY)
    return f"{len(found)} with {events} events, GMV {money(gmv)}, refunds {money(refunds)}"


def _buckets_that_differ(expected: Buckets, found: Buckets) -> Iterator[str]:
    for start in sorted({*expected, *found}):
        for text in _fields_that_differ(expected.get(start, {}), found.get(start, {})):
            yield f"{start} {text}"


def _fields_that_differ(expected: Fields, found: Fields) -> Iterator[str]:
    for name in sorted({*expected, *found}):
        if expected.get(name, 0) != found.get(name, 0):
            yield f"{name} {expected.get(name, 0)} became {found.get(name, 0)}"
