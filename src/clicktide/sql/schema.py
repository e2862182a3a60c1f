"""The tables of one DSN, as the statements see them; deploy/migrations makes them.

The names of row.COLUMNS are the columns' names, but for `partition` and `offset`, which are reserved words.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from clicktide.row import COLUMNS

_RENAMED: Final = {"partition": "log_partition", "offset": "log_offset"}
EVENT_COLUMNS: Final = tuple(_RENAMED.get(name, name) for name in COLUMNS)
STORED_COLUMNS: Final = ("shard", "event_id", "user_id", "type", "occurred_at", "body")
_NUMBERS: Final = frozenset(
    {"occurred_at", "received_at", "shard", "amount", "quantity", "log_partition", "log_offset"}
)
TRANSITIONS: Final = ("ordered", "paid", "refunded")
ORDER_COLUMNS: Final = (
    "shard",
    "order_id",
    "user_id",
    *(f"{step}_{part}" for step in TRANSITIONS for part in ("at", "event", "amount")),
)

metadata = sa.MetaData()
views = sa.MetaData()


def _columns(names: tuple[str, ...], numbers: frozenset[str]) -> list[sa.Column[object]]:
    return [sa.Column(name, sa.BigInteger() if name in numbers else sa.String()) for name in names]


# How a row is stored, see clicktide.sql.body; and the view of it that has a column a field, for questions in SQL.
stored_events = sa.Table("events", metadata, *_columns(STORED_COLUMNS, _NUMBERS))
events = sa.Table("event_fields", views, *_columns(EVENT_COLUMNS, _NUMBERS))
orders = sa.Table(
    "orders",
    metadata,
    *_columns(
        ORDER_COLUMNS,
        frozenset({"shard", *(f"{step}_{part}" for step in TRANSITIONS for part in ("at", "amount"))}),
    ),
)
# One row (id 1): which DSN this is among how many, for how many shards. `version` grows with every change of
# shard_map; writers read it under a shared lock, so a move that changes it has waited for every write under way.
placement = sa.Table(
    "placement",
    metadata,
    sa.Column("id", sa.Integer()),
    sa.Column("dsn", sa.Integer()),
    sa.Column("homes", sa.Integer()),
    sa.Column("shards", sa.Integer()),
    sa.Column("version", sa.Integer()),
)
# Only shards that were ever moved to or from this DSN; all others are where `shards.dsn_index` says.
# state `active`: here; `moving`: here, and every write goes to `dsn` too; `incoming`: being copied from `dsn`;
# `moved`: `dsn` has it now.
shard_map = sa.Table(
    "shard_map",
    metadata,
    sa.Column("shard", sa.Integer()),
    sa.Column("state", sa.String()),
    sa.Column("dsn", sa.Integer()),
    sa.Column("changed_at", sa.BigInteger()),
)
# Users whose events are dropped, see clicktide.erasure; `lifted` (0 or 1) when that was taken back. `version` is the
# placement's of the change, so that writers, who read that anyway, know when to look.
erased = sa.Table(
    "erased",
    metadata,
    sa.Column("shard", sa.Integer()),
    sa.Column("user_id", sa.String()),
    sa.Column("erased_at", sa.BigInteger()),
    sa.Column("lifted", sa.Integer()),
    sa.Column("version", sa.Integer()),
)
