"""Sharded SQL: events and orders over several DSNs, on MySQL/MariaDB or SQLite."""

from clicktide.sql.engine import sqlite_dsn
from clicktide.sql.migrations import migrate
from clicktide.sql.read import Counts, Cursor
from clicktide.sql.store import SCAN_COLUMNS, SqlStore
from clicktide.sql.write import RowOutcome, Written

__all__ = ["SCAN_COLUMNS", "Counts", "Cursor", "RowOutcome", "SqlStore", "Written", "migrate", "sqlite_dsn"]
