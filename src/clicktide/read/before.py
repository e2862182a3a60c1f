"""Before: what SQL's events of a user before a moment come to, as a tally.

Its cost grows with the user's history (5 µs a row), so it looks at the newest `MOST` only: one user with millions of events must
not keep a server from all others.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from clicktide.read.tally import Tally
from clicktide.sql.schema import events

MOST = 50_000
_KNOWN_ROWS = 200  # so many of the newest are looked at for province, gender and age range
_NEVER = 2**62


def tally_before(
    connection: Connection,
    shard: int,
    user_id: str,
    since: int | None,
    start: int | None = None,
    most: int = MOST,
) -> Tally:
    """What the newest `most` events from `start` on and before `since` (ms) come to; None is no bound."""
    bounds = {"since": _NEVER if since is None else since, "start": -_NEVER if start is None else start}
    given = {"shard": shard, "user_id": user_id, **bounds}
    tally = Tally()
    for kind, category, brand, count, total, first, last in _rows(
        connection, _GROUPS, {**given, "most": most}
    ):
        tally.group(kind, category, brand, int(count), int(total))
        tally.seen(int(first), int(last))
    if tally.events:
        for row in _rows(connection, _NEWEST, {**given, "most": _KNOWN_ROWS}):
            tally.know(*row)
    return tally


def _rows(connection: Connection, query: sa.Select[Any], given: dict[str, Any]) -> Iterable[Any]:
    if connection.dialect.name != "sqlite":
        return connection.execute(query, given)
    # sqlite3 gives the interpreter's lock away and waits for it again at every row: here all come as one.
    return orjson.loads(connection.execute(_AS_ONE[query], given).scalar() or b"[]")  # type: ignore[no-any-return]


def _mine(*columns: Any) -> sa.Select[Any]:
    c = events.c
    mine = (c.shard == sa.bindparam("shard"), c.user_id == sa.bindparam("user_id"))
    times = (c.occurred_at >= sa.bindparam("start"), c.occurred_at < sa.bindparam("since"))
    return (
        sa.select(*columns)
        .where(*mine, *times)
        .order_by(c.occurred_at.desc())
        .limit(sa.bindparam("most", type_=sa.Integer))
    )


def _groups() -> sa.Select[Any]:
    c = events.c
    inner = _mine(c.type, c.category_id, c.brand_id, c.amount, c.occurred_at).subquery().c
    names = (inner.type, inner.category_id, inner.brand_id)
    sums = (sa.func.count(), sa.func.coalesce(sa.func.sum(inner.amount), 0))
    times = (sa.func.min(inner.occurred_at), sa.func.max(inner.occurred_at))
    return sa.select(*names, *sums, *times).group_by(*names)


def _as_one(query: sa.Select[Any]) -> sa.Select[Any]:
    return sa.select(sa.func.json_group_array(sa.func.json_array(*query.subquery().c)))


# Made once: making them anew costs ten times what they cost in the server.
_GROUPS = _groups()
_NEWEST = _mine(events.c.occurred_at, events.c.province, events.c.gender, events.c.age_range)
_AS_ONE = {query: _as_one(query) for query in (_GROUPS, _NEWEST)}
