"""What Redis holds: totals, buckets and users' timelines, summed over the shards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bench.ledger.expected import CONTENT, Content
from bench.ledger.sums import Buckets, Fields
from clicktide import keys
from clicktide.member import rows_of
from clicktide.redisstore.client import connect, errors_named
from clicktide.row import COLUMNS
from clicktide.settings import Settings
from clicktide.shards import shard_of

_CHUNK = 500
_AT = {name: COLUMNS.index(name) for name in ("event_id", "occurred_at", *CONTENT)}


class Entry(NamedTuple):
    """A member of a timeline: its score and what it says."""

    score: int
    event_id: str
    occurred_at: int
    content: Content


@dataclass(slots=True)
class RedisSide:
    """`buckets` by granularity (`s`, `m`, `h`, `d`); zero fields are left out. Timelines oldest first."""

    totals: Fields = field(default_factory=dict)
    buckets: dict[str, Buckets] = field(default_factory=dict)
    timelines: dict[str, list[Entry]] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)


def collect(settings: Settings, users: Iterable[str], wanted: Callable[[str, int], bool]) -> RedisSide:
    """Totals of all shards, the buckets that are `wanted(granularity, start)`, the users' timelines.

    Raises `StoreUnavailable` when Redis is away.
    """
    side = RedisSide(buckets={g: {} for g in keys.GRANULARITIES})
    namespace, shards = settings.text("redis.namespace"), settings.integer("shards.count")
    client = connect(settings, timeout_s=max(30.0, settings.number("redis.timeout_s")))
    with errors_named():
        names = [keys.totals(namespace, shard) for shard in range(shards)]
        for counts in _many(client, names, lambda pipe, name: pipe.hgetall(name)):
            _add(side.totals, counts)
        found = _bucket_keys(client, namespace, shards, wanted)
        answers = _many(client, [key for key, _, _ in found], lambda pipe, name: pipe.hgetall(name))
        for (_, granularity, start), counts in zip(found, answers, strict=True):
            _add(side.buckets[granularity].setdefault(start, {}), counts)
        for granularity, starts in side.buckets.items():
            side.buckets[granularity] = {s: fields for s, fields in starts.items() if fields}
        _timelines(client, namespace, shards, list(users), side)
    client.close()
    return side


def _many(client: Any, names: Sequence[Any], ask: Callable[[Any, Any], None]) -> Iterable[Any]:
    """One answer a name, asked in pipelines."""
    for at in range(0, len(names), _CHUNK):
        with client.pipeline(transaction=False) as pipe:
            for name in names[at : at + _CHUNK]:
                ask(pipe, name)
            yield from pipe.execute()


def _bucket_keys(
    client: Any, namespace: str, shards: int, wanted: Callable[[str, int], bool]
) -> list[tuple[bytes, str, int]]:
    """(key, granularity, start) of every wanted bucket there is; a scan finds those that should not be, too."""
    escaped = "".join("\\" + c if c in "*?[]\\^-" else c for c in namespace)
    prefix = len(f"tide:{namespace}:")
    ours = {f"{{s{shard}}}" for shard in range(shards)}
    found: dict[bytes, tuple[bytes, str, int]] = {}
    for key in client.scan_iter(match=f"tide:{escaped}:{{s*}}:b:*", count=10_000):
        tag, _, granularity, start = [*key.decode()[prefix:].split(":"), "", "", ""][:4]
        if (
            granularity in keys.GRANULARITIES
            and start.isdigit()
            and tag in ours
            and wanted(granularity, int(start))
        ):
            found[key] = (key, granularity, int(start))
    return list(found.values())


def _timelines(client: Any, namespace: str, shards: int, users: list[str], side: RedisSide) -> None:
    words: dict[str, str] = {}
    names = [keys.timeline(namespace, shard_of(user, shards), user) for user in users]
    answers = _many(client, names, lambda pipe, name: pipe.zrange(name, 0, -1, withscores=True))
    for user, members in zip(users, answers, strict=True):
        entries = []
        for member, score in members:
            try:
                (row,) = rows_of([member])
                fields = [row[_AT[name]] for name in CONTENT]
                event_id, occurred_at = row[_AT["event_id"]], row[_AT["occurred_at"]]
            except (ValueError, IndexError, TypeError):
                side.unreadable.append(user)
                continue
            # Texts repeat a lot: one copy of each bounds the memory.
            content = tuple(words.setdefault(v, v) if isinstance(v, str) else v for v in fields)
            entries.append(Entry(int(score), event_id, occurred_at, content))
        side.timelines[user] = entries


def _add(into: Fields, counts: dict[bytes, bytes]) -> None:
    for name, n in counts.items():
        if (value := int(n)) != 0:
            text = name.decode()
            into[text] = into.get(text, 0) + value
