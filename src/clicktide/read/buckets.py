"""Reads of the buckets: totals of all time, series of a span, sums by category or province, distinct users.

Each read asks every shard once, in one pipeline, and sums the answers; users belong to one shard, so distinct
counts of shards add up (each HyperLogLog errs by 0.81 % or less).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from clicktide import keys
from clicktide.read.plan import RANGE, SUMS, Command, Read
from clicktide.read.spans import Counts, Span
from clicktide.row import GENDERS, TYPES

EVENT_FIELDS = tuple(f"n:{t}" for t in TYPES)
GENDER_FIELDS = tuple(f"g:{g}" for g in GENDERS)
MONEY_FIELDS = ("gmv", "refunds", "n:pay", "n:order")
ALL_FIELDS = (*EVENT_FIELDS, *GENDER_FIELDS, "gmv", "refunds", "late")


def totals(namespace: str, shards: int, fields: Sequence[str] = ALL_FIELDS) -> Read[Counts]:
    """The fields' sums over all time."""
    commands: list[Command] = [("HMGET", keys.totals(namespace, s), *fields) for s in range(shards)]

    def fold(replies: list[Any]) -> Counts:
        return {f: sum(int(reply[i] or 0) for reply in replies) for i, f in enumerate(fields)}

    return Read(commands, fold)


def series(namespace: str, shards: int, span: Span, fields: Sequence[str]) -> Read[dict[int, Counts]]:
    """The fields of each bucket of the span that has any: start (s) -> field -> sum."""
    commands: list[Command] = [
        ("EVALSHA", RANGE.sha, 1, _prefix(namespace, s, span), span.step, span.start, span.size, *fields)
        for s in range(shards)
    ]
    width = len(fields) + 1

    def fold(replies: list[Any]) -> dict[int, Counts]:
        out: dict[int, Counts] = {}
        for reply in replies:
            for at in range(0, len(reply), width):
                counts = out.setdefault(int(reply[at]), dict.fromkeys(fields, 0))
                for i, field in enumerate(fields, at + 1):
                    counts[field] += int(reply[i])
        return out

    return Read(commands, fold)


def sums(namespace: str, shards: int, span: Span | None, prefix: Literal["c:", "p:"]) -> Read[Counts]:
    """Sums by category (`c:`, pay amounts) or province (`p:`, events) over the span, or all time; the largest first.

    The span must not be of 1-second buckets: they do not have these fields.
    """
    if span is None:
        commands: list[Command] = [("HGETALL", keys.totals(namespace, s)) for s in range(shards)]
    else:
        commands = [
            ("EVALSHA", SUMS.sha, 1, _prefix(namespace, s, span), span.step, span.start, span.size, prefix)
            for s in range(shards)
        ]

    def fold(replies: list[Any]) -> Counts:
        found: Counter[str] = Counter()
        cut, start = (len(prefix), prefix.encode()) if span is None else (0, b"")
        for reply in replies:
            for name, value in _pairs(reply):
                if name.startswith(start):
                    found[name[cut:].decode()] += int(value)
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    return Read(commands, fold)


def distinct(namespace: str, shards: int, which: Literal["v", "y"], span: Span | None) -> Read[int]:
    """Distinct visitors (`v`) or payers (`y`) of a span of hours or days, or of all time. Approximate."""
    name = {"v": keys.visitors, "y": keys.payers}[which]

    def of(shard: int) -> Command:
        if span is None:
            return ("PFCOUNT", name(namespace, shard, "a", None))
        return ("PFCOUNT", *(name(namespace, shard, span.granularity, start) for start in span.starts))

    return Read([of(s) for s in range(shards)], lambda replies: sum(int(r) for r in replies))


def distinct_series(
    namespace: str, shards: int, which: Literal["v", "y"], span: Span
) -> Read[dict[int, int]]:
    """Distinct users of each bucket of a span of hours or days: start (s) -> users."""
    name = {"v": keys.visitors, "y": keys.payers}[which]
    starts = list(span.starts)
    commands: list[Command] = [
        ("PFCOUNT", name(namespace, shard, span.granularity, start))
        for shard in range(shards)
        for start in starts
    ]

    def fold(replies: list[Any]) -> dict[int, int]:
        return {start: sum(int(r) for r in replies[i :: len(starts)]) for i, start in enumerate(starts)}

    return Read(commands, fold)


def _prefix(namespace: str, shard: int, span: Span) -> str:
    return f"{keys.shard_prefix(namespace, shard)}b:{span.granularity}:"


def _pairs(reply: Any) -> Any:
    # A hash comes as a mapping, a script's answer as a flat list.
    if isinstance(reply, dict):
        return reply.items()
    return zip(reply[::2], reply[1::2], strict=True)
