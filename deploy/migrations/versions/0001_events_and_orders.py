"""Events, orders, and the account of which shards a DSN holds.

Text is compared byte by byte and without padding: `a` and `a ` are two ids. That collation has one name in MariaDB
and another in MySQL. SQLite's tables are STRICT, with a CHECK for the lengths of the keys: one for every column that
MySQL limits would cost a third of the writing (docs/decisions/0005-sql.md).
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None

TYPES = ("view", "click", "cart", "favorite", "order", "pay", "refund")
GENDERS = ("female", "male", "unknown")
STEPS = ("ordered", "paid", "refunded")
IDS = ("item_id", "category_id", "merchant_id", "brand_id", "order_id")
TEXTS = ("age_range", "province", "channel")


class Build:
    """Columns and tables of either dialect."""

    def __init__(self) -> None:
        self.lite = op.get_bind().dialect.name == "sqlite"

    def text(self, name: str, length: int, *, null: bool = False) -> sa.Column[Any]:
        """Text of at most `length` characters."""
        return sa.Column(name, sa.Text() if self.lite else sa.String(length), nullable=null)

    def choice(self, name: str, choices: tuple[str, ...]) -> sa.Column[Any]:
        """One of a few words; one byte in MySQL, where a new word at the end is an instant change."""
        return sa.Column(name, sa.Text() if self.lite else mysql.ENUM(*choices), nullable=False)

    def number(self, name: str, kind: Any = sa.BigInteger, *, null: bool = False) -> sa.Column[Any]:
        """A whole number."""
        return sa.Column(name, sa.Integer() if self.lite else kind(), nullable=null, autoincrement=False)

    def table(self, name: str, *columns: sa.Column[Any], key: tuple[str, ...], check: str = "") -> None:
        """Make the table; `check` is for SQLite, whose types have no length."""
        op.create_table(
            name,
            *columns,
            sa.PrimaryKeyConstraint(*key),
            *([sa.CheckConstraint(check)] if check and self.lite else []),
            sqlite_strict=True,
            mysql_engine="InnoDB",
            mysql_charset="utf8mb4",
            mysql_collate=collation(),
        )


def collation() -> str:
    """Binary and without padding, by the server's name for it."""
    return "utf8mb4_nopad_bin" if getattr(op.get_bind().dialect, "is_mariadb", False) else "utf8mb4_0900_bin"


def upgrade() -> None:
    """Make all tables."""
    b = Build()
    b.table(
        "events",
        b.number("shard", sa.SmallInteger),
        b.text("event_id", 64),
        b.choice("type", TYPES),
        b.text("user_id", 64),
        b.number("occurred_at"),
        b.number("received_at"),
        *(b.text(name, 64, null=True) for name in IDS),
        b.number("amount", null=True),
        b.number("quantity"),
        b.choice("gender", GENDERS),
        *(b.text(name, 255, null=True) for name in TEXTS),
        sa.Column("extra", sa.Text()),
        b.text("fingerprint", 8),
        b.text("topic_id", 6),
        b.number("log_partition", sa.Integer),
        b.number("log_offset"),
        key=("shard", "event_id"),
        check="length(event_id)<=64 AND length(user_id)<=64",
    )
    op.create_index("events_by_user", "events", ["shard", "user_id", "occurred_at"])
    steps = [
        column
        for step in STEPS
        for column in (
            b.number(f"{step}_at", null=True),
            b.text(f"{step}_event", 64, null=True),
            b.number(f"{step}_amount", null=True),
        )
    ]
    b.table(
        "orders",
        b.number("shard", sa.SmallInteger),
        b.text("order_id", 64),
        b.text("user_id", 64),
        *steps,
        key=("shard", "order_id"),
        check="length(order_id)<=64 AND length(user_id)<=64",
    )
    b.table(
        "placement",
        *(b.number(name, sa.Integer) for name in ("id", "dsn", "homes", "shards", "version")),
        key=("id",),
    )
    b.table(
        "shard_map",
        b.number("shard", sa.SmallInteger),
        b.choice("state", ("active", "moving", "incoming", "moved")),
        b.number("dsn", sa.Integer),
        b.number("changed_at"),
        key=("shard",),
    )


def downgrade() -> None:
    """Drop all tables."""
    for name in ("shard_map", "placement", "orders", "events"):
        op.drop_table(name)
