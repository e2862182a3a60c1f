"""The text of multi-row statements: literals, escapes, and where they are split."""

from __future__ import annotations

import orjson
import pymysql
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clicktide.sql.mysql import literals, quotable, statements


class Escaper:
    """As much of a PyMySQL connection as `literals` takes."""

    def __init__(self):
        self.asked = []

    def escape(self, value):
        self.asked.append(value)
        return pymysql.converters.escape_item(value, "utf8mb4")


# What a backslash and a letter mean to MySQL; any other letter stands for itself.
MEANING = {"0": "\0", "b": "\b", "n": "\n", "r": "\r", "t": "\t", "Z": "\x1a"}


def read_as_mysql(text: str) -> list:
    """The values of a VALUES list, read by MySQL's own rules for literals."""
    values, i = [], 0
    while i < len(text):
        if text[i] in "\"'":
            quote, i, out = text[i], i + 1, []
            while text[i] != quote:
                if text[i] == "\\":
                    i += 1
                    out.append(MEANING.get(text[i], text[i]))
                else:
                    out.append(text[i])
                i += 1
            values.append("".join(out))
            i += 1
        else:
            end = text.find(",", i) if "," in text[i:] else len(text)
            word = text[i:end]
            values.append(None if word.upper() == "NULL" else int(word))
            i = end
        assert i == len(text) or text[i] == ","
        i += 1
    return values


rows = st.lists(
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1) | st.text(), min_size=1, max_size=5), max_size=4
)


@given(rows)
def test_what_mysql_reads_is_what_was_meant(given_rows):
    texts = literals(Escaper(), given_rows)
    assert [read_as_mysql(text.decode()) for text in texts] == given_rows


def test_only_rows_with_escapes_that_mysql_reads_otherwise_go_through_the_driver():
    driver = Escaper()
    literals(driver, [["plain\n\t\\\"'"], ["\x01"], ["\f", 1, None], ["last"]])
    assert driver.asked == ["\x01", "\f", 1]


@given(st.lists(st.text() | st.text(st.sampled_from("\"'\\\0\n,()[]{}"))))
def test_json_between_quotes_is_read_as_it_was(texts):
    found = [orjson.dumps({"a": text}) for text in texts]
    assert [read_as_mysql(f"'{text.decode()}'") for text in quotable(found)] == [[f.decode()] for f in found]


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (100, [b"<aa),(bb),(cc>"]),
        (7, [b"<aa),(bb>", b"<cc>"]),
        (2, [b"<aa>", b"<bb>", b"<cc>"]),
        (1, [b"<aa>", b"<bb>", b"<cc>"]),
    ],
)
def test_statements_are_split_by_size(most, expected):
    assert list(statements(b"<", [b"aa", b"bb", b"cc"], b">", most)) == expected


@given(st.lists(st.binary(min_size=1, max_size=9), max_size=30), st.integers(1, 40))
def test_no_row_is_lost_by_splitting(texts, most):
    found = list(statements(b"", texts, b"", most))
    assert b"),(".join(found) == b"),(".join(texts)
    assert all(len(s) <= most + 3 or s in texts for s in found)


def test_nothing_makes_no_statement():
    assert list(statements(b"<", [], b">", 10)) == []
