"""Accounts: how much SQL has of each of several users, asked for together.

What a question costs is the way there and back, not the look into the index; so whoever asks at the same time asks as one, and
the driver is asked directly: of 74 µs for one user SQLAlchemy's work was 50, in which the loop's thread has to wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from clicktide.sql.schema import erased
from clicktide.sql.schema import stored_events as events

MOST = 32  # questions a statement
_EVER = 2**62


class Ask(NamedTuple):
    """Of whom, and of which times (ms): events before `since` are old; `last` is that of the newest that Redis has, None for none: then
    whatever SQL has from `since` on is missing there."""

    shard: int
    user_id: str
    since: int
    last: int | None


class Account(NamedTuple):
    """`older` events lie before `since`, `inside` events from then up to `last` (None: all); `erased`: the user's events are dropped."""

    older: int
    inside: int
    erased: bool


def accounts(connection: Connection, asks: Sequence[Ask]) -> list[Account]:
    """The accounts in the order of `asks`, which are not empty; the connection's DSN must hold their shards."""
    out: list[Account] = []
    for start in range(0, len(asks), MOST):
        out += _accounts(connection, asks[start : start + MOST])
    return out


def _accounts(connection: Connection, asks: Sequence[Ask]) -> list[Account]:
    size = 1 << (len(asks) - 1).bit_length()
    given: dict[str, Any] = {}
    for n in range(size):  # up to the statement's size with the last one again
        ask = asks[min(n, len(asks) - 1)]
        last = _EVER if ask.last is None else ask.last
        given |= {f"n{n}": n, f"h{n}": ask.shard, f"u{n}": ask.user_id, f"s{n}": ask.since, f"l{n}": last}
    found: list[Account | None] = [None] * size
    text, order = _text(connection.dialect, size)
    cursor = connection.connection.cursor()
    try:
        cursor.execute(text, given if order is None else tuple([given[name] for name in order]))
        for n, older, inside, lifted in cursor.fetchall():
            found[int(n)] = Account(int(older), int(inside), lifted is not None and int(lifted) == 0)
    finally:
        cursor.close()
    return [account for account in found[: len(asks)] if account is not None]


@lru_cache(512)
def _text(dialect: sa.Dialect, size: int) -> tuple[str, list[str] | None]:
    """The statement as the driver takes it, and the names of its values in their order; None where it takes them by name."""
    compiled: Any = _statement(size).compile(dialect=dialect)
    return str(compiled), compiled.positiontup


def _statement(size: int) -> Any:
    selects = [_one(n) for n in range(size)]
    return selects[0] if size == 1 else sa.union_all(*selects)


def _one(n: int) -> sa.Select[Any]:
    names: list[sa.BindParameter[Any]] = [sa.bindparam(f"{name}{n}") for name in "husl"]
    shard, user, since, last = names
    mine = (events.c.shard == shard, events.c.user_id == user)
    older = sa.select(sa.func.count()).where(*mine, events.c.occurred_at < since)
    inside = sa.select(sa.func.count()).where(*mine, events.c.occurred_at.between(since, last))
    lifted = sa.select(erased.c.lifted).where(erased.c.shard == shard, erased.c.user_id == user)
    return sa.select(
        sa.bindparam(f"n{n}"), older.scalar_subquery(), inside.scalar_subquery(), lifted.scalar_subquery()
    )
