"""Which errors are the value's own fault and which the server's."""

from __future__ import annotations

import sqlite3

import pymysql
import pytest
import sqlalchemy.exc

from clicktide.errors import StoreRefused, StoreUnavailable
from clicktide.sql.failures import StoreGone, translate

OPERATIONAL = pymysql.err.OperationalError


@pytest.mark.parametrize(
    "error",
    [
        pymysql.err.DataError(1406, "Data too long"),
        pymysql.err.IntegrityError(1048, "cannot be null"),
        OPERATIONAL(4025, "CONSTRAINT failed"),
        OPERATIONAL(1366, "Incorrect string value"),
        OPERATIONAL(1153, "packet bigger than max_allowed_packet"),
        sqlite3.IntegrityError("CHECK constraint failed"),
        OverflowError("Python int too large to convert to SQLite INTEGER"),
        UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
        sqlalchemy.exc.IntegrityError("INSERT", {}, sqlite3.IntegrityError("NOT NULL")),
    ],
)
def test_refused(error):
    found = translate("mysql.1", error)
    assert type(found) is StoreRefused
    assert found.store == "mysql.1"


@pytest.mark.parametrize(
    "code",
    [
        1021,
        1040,
        1041,
        1044,
        1045,
        1049,
        1114,
        1142,
        1146,
        1205,
        1290,
        1317,
        1836,
        1969,
        2002,
        2003,
        3024,
        9999,
    ],
)
def test_the_servers_trouble_is_never_the_values_fault(code):
    found = translate("mysql.1", OPERATIONAL(code, "x"))
    assert type(found) is StoreUnavailable
    assert found.retriable


@pytest.mark.parametrize(
    "text",
    [
        "database is locked",
        "database or disk is full",
        "attempt to write a readonly database",
        "disk I/O error",
    ],
)
def test_sqlites_trouble(text):
    assert type(translate("mysql.0", sqlite3.OperationalError(text))) is StoreUnavailable


@pytest.mark.parametrize("code", [2006, 2013, 1213])
def test_worth_another_try_at_once(code):
    assert type(translate("mysql.1", OPERATIONAL(code, "x"))) is StoreGone


def test_a_full_pool_is_a_slow_store():
    assert type(translate("mysql.1", sqlalchemy.exc.TimeoutError("QueuePool limit"))) is StoreUnavailable


def test_a_bug_is_neither():
    assert translate("mysql.1", KeyError("x")) is None


def test_the_message_is_one_short_line_and_has_the_code():
    found = translate("mysql.1", OPERATIONAL(1290, "read\n  only " + "x" * 1000))
    assert str(found).startswith("mysql.1: read only xxx")
    assert str(found).endswith("(1290)")
    assert len(str(found)) < 350
