"""Events in six columns: what is looked for, and a body with the rest; a view with a column a field.

Rows that are there are copied in one statement a DSN; writers wait for it. docs/decisions/0005-sql.md says why.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"

TYPES = ("view", "click", "cart", "favorite", "order", "pay", "refund")
# Column and kind, in the order of the body's array; `extra` is JSON itself.
BODY = (
    ("received_at", "number"),
    ("item_id", "text"),
    ("category_id", "text"),
    ("merchant_id", "text"),
    ("brand_id", "text"),
    ("order_id", "text"),
    ("amount", "number"),
    ("quantity", "number"),
    ("gender", "text"),
    ("age_range", "text"),
    ("province", "text"),
    ("channel", "text"),
    ("fingerprint", "text"),
    ("topic_id", "text"),
    ("log_partition", "number"),
    ("log_offset", "number"),
    ("extra", "json"),
)
# The view's columns, in the order of row.COLUMNS.
FIELDS = (
    "event_id", "type", "user_id", "occurred_at", "received_at", "shard", "item_id", "category_id", "merchant_id",
    "brand_id", "order_id", "amount", "quantity", "gender", "age_range", "province", "channel", "extra", "fingerprint",
    "topic_id", "log_partition", "log_offset",
)  # fmt: skip
HEAD = ("shard", "event_id", "user_id", "type", "occurred_at")


def upgrade() -> None:
    """Rows to bodies."""
    bind = op.get_bind()
    lite = bind.dialect.name == "sqlite"
    maria = bool(getattr(bind.dialect, "is_mariadb", False))
    op.rename_table("events", "events_0001")
    if lite:
        op.execute("DROP INDEX events_by_user")
    _make(lite, "utf8mb4_nopad_bin" if maria else "utf8mb4_0900_bin")
    values = [name if kind != "json" else _as_json(lite, maria) for name, kind in BODY]
    array = "json_array" if lite else "JSON_ARRAY"
    op.execute(
        f"INSERT INTO events ({','.join(HEAD)},body) SELECT {','.join(HEAD)},{array}({','.join(values)}) FROM events_0001"
    )
    op.drop_table("events_0001")
    fields = dict.fromkeys(HEAD, "")
    columns = ",".join(
        name if name in fields else f"{_field(name, lite, maria)} AS {name}" for name in FIELDS
    )
    op.execute(f"CREATE VIEW event_fields AS SELECT {columns} FROM events")


def _make(lite: bool, collation: str) -> None:
    number = sa.Integer() if lite else sa.BigInteger()
    op.create_table(
        "events",
        sa.Column("shard", sa.Integer() if lite else sa.SmallInteger(), nullable=False, autoincrement=False),
        sa.Column("event_id", sa.Text() if lite else sa.String(64), nullable=False),
        sa.Column("user_id", sa.Text() if lite else sa.String(64), nullable=False),
        sa.Column("type", sa.Text() if lite else mysql.ENUM(*TYPES), nullable=False),
        sa.Column("occurred_at", number, nullable=False),
        sa.Column("body", sa.Text() if lite else mysql.MEDIUMTEXT(), nullable=False),
        sa.PrimaryKeyConstraint("shard", "event_id"),
        *([sa.CheckConstraint("length(event_id)<=64 AND length(user_id)<=64")] if lite else []),
        sqlite_strict=True,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate=collation,
    )
    op.create_index("events_by_user", "events", ["shard", "user_id", "occurred_at"])


def _as_json(lite: bool, maria: bool) -> str:
    """`extra`'s text as the JSON that it is."""
    if lite:
        return "json(extra)"
    # MariaDB has no JSON type to cast to; what a JSON function answers counts as JSON.
    return "JSON_COMPACT(extra)" if maria else "CAST(extra AS JSON)"


def _field(name: str, lite: bool, maria: bool) -> str:
    at, kind = next((i, kind) for i, (other, kind) in enumerate(BODY) if other == name)
    path = f"body,'$[{at}]'"
    if lite:
        return f"json_extract({path})"
    if kind == "json":
        return (
            f"NULLIF(JSON_EXTRACT({path}),'null')"
            if maria
            else f"NULLIF(JSON_EXTRACT({path}),CAST('null' AS JSON))"
        )
    if kind == "number":
        return f"CAST(JSON_VALUE({path}) AS SIGNED)"
    # The body's own collation: what is grouped by a field is told apart as the ids are.
    return f"JSON_VALUE({path}) COLLATE {'utf8mb4_nopad_bin' if maria else 'utf8mb4_0900_bin'}"


def downgrade() -> None:
    """There is no way back: an older version would not know the rows."""
    raise NotImplementedError
