"""Redis keys: every name in one place.

All keys of a shard carry the same hash tag, so they share a Redis Cluster slot:
`tide:<namespace>:{s<shard>}:<rest>`.

| rest | type | holds |
|---|---|---|
| `c:<generation>` | string | that the generation has begun |
| `c:<generation>:<bucket>` | hash | claims: digest of the event id -> claim (`claims`) |
| `t:<user_id>` | sorted set | timeline: score occurred_at (ms), member the event as `member` packs it |
| `b:<g>:<start>` | hash | bucket of granularity g (s, m, h, d) that starts at `start` (s since the epoch, UTC): field -> integer |
| `b:a` | hash | the same, of all time |
| `x` | set | erased users, and the empty name once it has been filled; without that it is not known who is erased |
| `v:<g>:<start>`, `v:a` | HyperLogLog | visitors: the distinct users of the bucket (h, d and all time) |
| `y:<g>:<start>`, `y:a` | HyperLogLog | payers: the distinct users with a pay |

Fields of a bucket: `n:<type>` events; `g:<gender>` events; `gmv` sum of pay amounts; `refunds` sum of refund
amounts (minor units). All but the 1-second buckets also have `c:<category_id>` (pay amounts by category; `c:` alone
where the event has none) and `p:<province>` (events; `p:` alone likewise). `b:a` also has `late` (events stored
but too old to count). Not sharded: `tide:<namespace>:spouts:<topic>` (hash partition -> JSON of the spout's position)
`tide:<namespace>:workers` (hash component:task -> JSON of its health), `tide:<namespace>:dead:allowed` (hash stage -> until
when, ms), `tide:<namespace>:dead:stopped` (JSON of the stages that are stopped; expires),
`tide:<namespace>:suspects:<group>:<topic>` (hash partition -> JSON of a `suspects.Note`) and `tide:<namespace>:trial` (which spout
task tries a suspect just now; expires).
"""

from __future__ import annotations

GRANULARITIES = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def shard_prefix(namespace: str, shard: int) -> str:
    """`tide:<namespace>:{s<shard>}:`"""
    return f"tide:{namespace}:{{s{shard}}}:"


def timeline(namespace: str, shard: int, user_id: str) -> str:
    return f"{shard_prefix(namespace, shard)}t:{user_id}"


def bucket(namespace: str, shard: int, granularity: str, start: int) -> str:
    return f"{shard_prefix(namespace, shard)}b:{granularity}:{start}"


def totals(namespace: str, shard: int) -> str:
    return f"{shard_prefix(namespace, shard)}b:a"


def erased(namespace: str, shard: int) -> str:
    return f"{shard_prefix(namespace, shard)}x"


def visitors(namespace: str, shard: int, granularity: str, start: int | None) -> str:
    return f"{shard_prefix(namespace, shard)}v:{granularity}" + ("" if start is None else f":{start}")


def payers(namespace: str, shard: int, granularity: str, start: int | None) -> str:
    return f"{shard_prefix(namespace, shard)}y:{granularity}" + ("" if start is None else f":{start}")


def spouts(namespace: str, topic: str) -> str:
    return f"tide:{namespace}:spouts:{topic}"


def workers(namespace: str) -> str:
    return f"tide:{namespace}:workers"


def dead_allowed(namespace: str) -> str:
    return f"tide:{namespace}:dead:allowed"


def dead_stopped(namespace: str) -> str:
    return f"tide:{namespace}:dead:stopped"


def suspects(namespace: str, group: str, topic: str) -> str:
    return f"tide:{namespace}:suspects:{group}:{topic}"


def trial(namespace: str) -> str:
    return f"tide:{namespace}:trial"
