"""Alembic's environment: runs the migrations on the connection that clicktide.sql.migrate hands over."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"])
# On SQLite the caller has begun a transaction; MySQL commits every DDL statement by itself.
context.run_migrations()
