"""The erased users of each shard: what is written of them afterwards is dropped."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the table; `version` is the placement's that writers notice it by."""
    bind = op.get_bind()
    lite = bind.dialect.name == "sqlite"
    maria = bool(getattr(bind.dialect, "is_mariadb", False))
    number = sa.Integer() if lite else sa.BigInteger()
    op.create_table(
        "erased",
        sa.Column("shard", sa.Integer() if lite else sa.SmallInteger(), nullable=False, autoincrement=False),
        sa.Column("user_id", sa.Text() if lite else sa.String(64), nullable=False),
        sa.Column("erased_at", number, nullable=False),
        sa.Column("lifted", sa.Integer() if lite else sa.SmallInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("shard", "user_id"),
        sqlite_strict=True,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_nopad_bin" if maria else "utf8mb4_0900_bin",
    )
    op.create_index("erased_by_version", "erased", ["version"])


def downgrade() -> None:
    """Drop the table: the users' events would come back with the next replay."""
    op.drop_table("erased")
