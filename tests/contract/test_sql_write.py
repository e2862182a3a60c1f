"""What a writer promises, in both dialects."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sql_dialects import DIALECTS, fresh_dsns, open_store, row

from clicktide.errors import SettingError, StoreRefused
from clicktide.orders import fold
from clicktide.sql import RowOutcome
from clicktide.sql.body import body_of
from clicktide.sql.bulk import BulkConnection

BIG = 2**63 - 1
NASTY = [
    "a'b",
    'a"b',
    "a\\b",
    "a\\u0041\\f",
    "\x00\x01\x1f\x7f",
    "\f\b\n\r\t\v",
    "%s %(x)s %%",
    "],[",
    "),(",
    "{x}",
    ":name ?",
    "-- */ ;",
    "😀 中文 é e\u0301",
    "\u2028\ufeff\uffff",
    "trailing ",
    "null",
    "",
]


# MariaDB takes events in bulk; MySQL, and whoever says so, as text.
WRITERS = [*DIALECTS, pytest.param("mysql as text", marks=pytest.mark.service)]


@pytest.fixture(params=WRITERS)
def dialect(request):
    return request.param


@pytest.fixture
def store(dialect, tmp_path):
    name, _, text = dialect.partition(" as ")
    store = open_store(fresh_dsns(name, tmp_path, 1), sql__bulk=not text)
    yield store
    store.close()


@pytest.mark.parametrize("dialect", WRITERS[1:], indirect=True)
def test_events_go_in_bulk_where_the_server_takes_it(store, dialect, monkeypatch):
    sent = []
    execute = BulkConnection.execute_bulk
    monkeypatch.setattr(BulkConnection, "execute_bulk", lambda *a: sent.append(len(a[3])) or execute(*a))
    monkeypatch.setattr(store.dsns[0].statements, "statement_bytes", 400)
    written = store.write(0, [row(f"e{i}", item_id="x" * i) for i in range(7)] + [row("e3")])
    assert (written.new, written.conflicts) == (7, [])
    assert store.counts().events == 7
    if dialect == "mysql":
        assert len(sent) > 3  # no packet is larger than a statement may be, unless a row alone is
        assert max(sent) <= 400
    else:
        assert sent == []


def test_a_row_comes_back_as_it_was(store):
    full = row(
        "e1",
        type="refund",
        occurred_at=0,
        received_at=BIG,
        shard=7,
        brand_id="b",
        order_id="o1",
        amount=BIG,
        quantity=2**31,
        gender="female",
        age_range="25-29",
        channel="app",
        extra='{"page":"/a\\"b","attributes":{"x":[1,null]}}',
        partition=2**31 - 1,
        offset=BIG,
    )
    assert store.write(0, [full, row("e2")]) == (2, [])
    assert store.event("e1") == full
    assert store.event("e2") == row("e2")
    assert store.event("e3") is None


@pytest.mark.parametrize("text", NASTY)
def test_any_text_comes_back_as_it_was(store, text):
    odd = row(f"{text}1", user_id=text, province=text, extra=json.dumps({"page": text}), item_id=text)
    assert store.write(0, [odd, row("plain")]) == (2, [])
    assert store.event(f"{text}1") == odd
    assert store.events_of_user(2, text) == [odd]
    assert store.write(0, [odd, row("plain")]) == (0, [])


@pytest.mark.parametrize("size", [100, 250, 251, 252, 65_535, 65_536, 70_000])
def test_a_body_of_any_size_comes_back_as_it_was(store, size):
    long = row(
        "long", extra=json.dumps({"page": "p" * (size - len(body_of(row("long", extra='{"page": ""}'))))})
    )
    assert len(body_of(long)) == max(size, len(body_of(row("long", extra='{"page": ""}'))))
    assert store.write(0, [long, row("next", user_id="中" * 64)]) == (2, [])
    assert store.event("long") == long
    assert store.event("next") == row("next", user_id="中" * 64)


@pytest.mark.parametrize("dialect", WRITERS[1:], indirect=True)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=64), min_size=1, max_size=20))
def test_any_texts_come_back_as_they_were(store, texts):
    rows = [row(f"{i}{t}"[:64], province=t, user_id=f"{i}{t}"[:64]) for i, t in enumerate(texts)]
    store.write(0, rows)
    for one in rows:
        assert store.event(one[0]) == one
        store.erase_user(2, one[2])


def test_again_changes_nothing(store):
    rows = [row(f"e{i}", shard=i % 8) for i in range(100)]
    assert store.write(0, rows) == (100, [])
    assert store.write(0, rows) == (0, [])
    assert store.write(0, [*rows, row("new")]) == (1, [])
    assert store.counts().events == 101
    assert store.write(0, []) == (0, [])


def test_ids_differ_by_case_and_by_blanks(store):
    ids = ["e", "E", "e ", " e", "é", "e\u0301", "ß", "ss"]
    assert store.write(0, [row(i) for i in ids]) == (8, [])
    assert all(store.event(i) == row(i) for i in ids)


def test_the_same_id_in_two_shards_is_two_events(store):
    assert store.write(0, [row("e", shard=1), row("e", shard=2)]) == (2, [])


def test_conflicts_are_named_and_change_nothing(store):
    first = row("e1", type="order", order_id="o", amount=5)
    store.write(0, [first])
    other = row("e1", type="order", order_id="o", amount=1, occurred_at=1, fingerprint="other---")
    assert store.write(0, [row("e0"), other, row("e2"), first]) == (2, [1])
    assert store.event("e1") == first
    assert store.order("o").ordered.amount == 5


def test_conflicts_within_one_write(store):
    rows = [row("e1"), row("e2"), row("e1", fingerprint="other---"), row("e1")]
    assert store.write(0, rows) == (2, [2])


def test_a_duplicate_of_another_time_changes_neither_the_event_nor_its_order(store):
    first = row("e1", type="pay", order_id="o", amount=5, occurred_at=100, offset=1)
    store.write(0, [first])
    assert store.write(0, [row("e1", type="pay", order_id="o", amount=5, occurred_at=50, offset=2)]) == (
        0,
        [],
    )
    assert store.event("e1") == first
    assert store.order("o").paid == (100, "e1", 5)


def test_a_refused_value_undoes_the_whole_write(store):
    rows = [row("e1", type="pay", order_id="o", amount=1), row("x" * 65), row("e3")]
    with pytest.raises(StoreRefused) as caught:
        store.write(0, rows)
    assert caught.value.store == "mysql.0"
    assert not caught.value.retriable
    assert store.counts().events == 0
    assert store.order("o") is None


BAD = [
    row("x" * 65),
    row("bad", user_id="y" * 65),
    row("bad", amount=2**64),
    row("bad", occurred_at="yesterday"),
    row("bad", province="\ud800"),
]


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_write_each_finds_the_refused_rows_and_writes_the_others(store, bad):
    rows = [row(f"e{i}") for i in range(7)]
    rows.insert(3, bad)
    rows.append(row("e1", fingerprint="other---"))
    outcomes = store.write_each(0, rows)
    assert [o.state for o in outcomes] == ["stored"] * 3 + ["refused"] + ["stored"] * 4 + ["conflict"]
    assert isinstance(outcomes[3].error, StoreRefused)
    assert outcomes[0] == RowOutcome("stored")
    assert store.counts().events == 7
    assert store.write_each(0, []) == []


def test_statements_are_split_where_they_would_be_too_long(store):
    store.dsns[0].statements.statement_bytes = 1000
    rows = [
        row(f"e{i}", type="pay", order_id=f"o{i}", amount=i, extra="x" * (3000 if i == 5 else 10))
        for i in range(50)
    ]
    assert store.write(0, rows) == (50, [])
    assert store.write(0, rows) == (0, [])
    assert store.counts() == (50, {"pay": 50}, 50)


STEPS = st.builds(
    lambda kind, at, n, amount: (kind, at, n, amount),
    st.sampled_from(["order", "pay", "refund"]),
    st.integers(0, 2),
    st.integers(0, 6),
    st.integers(0, 3),
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(STEPS, min_size=1, max_size=8, unique_by=lambda s: s[2]), st.data())
def test_an_order_is_the_same_whatever_the_order_and_repetition_of_its_events(store, steps, data):
    names = [
        "a",
        "A",
        "b",
        "ab",
        "é",
        "😀",
        "\uffff",
    ]  # as bytes, 😀 comes after \uffff; in UTF-16 it would not
    rows = [
        row(names[n], type=kind, order_id="o", amount=amount, occurred_at=at, user_id=f"u{n % 2}")
        for kind, at, n, amount in steps
    ]
    sent = data.draw(st.permutations(rows + data.draw(st.lists(st.sampled_from(rows), max_size=6))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=4)))
    for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        store.write(0, sent[start:end])
    (expected,) = fold(rows)
    try:
        assert store.order("o") == expected
    finally:
        for user in ("u0", "u1"):
            store.erase_user(2, user)
        assert store.counts() == (0, {}, 0)


def test_of_two_payments_at_one_time_the_smaller_id_wins_with_its_own_amount(store):
    """MySQL assigns from left to right: each assignment must still see the values its condition needs."""
    for n, (event_id, at, amount) in enumerate(
        [("m", 5, 1), ("b", 5, 2), ("z", 5, 3), ("c", 4, 4), ("a", 4, 5)]
    ):
        store.write(0, [row(event_id, type="pay", order_id="o", amount=amount, occurred_at=at)])
        first = [("m", 5, 1), ("b", 5, 2), ("b", 5, 2), ("c", 4, 4), ("a", 4, 5)][n]
        assert store.order("o").paid == (first[1], first[0], first[2])


def test_writers_at_once_count_each_row_as_new_once(store):
    rows = [
        row(f"e{i}", shard=i % 8, type="pay", order_id=f"o{i % 20}", amount=1, occurred_at=i)
        for i in range(400)
    ]

    def run(mine):
        return sum(store.write(0, mine[i : i + 50]).new for i in range(0, len(mine), 50))

    with ThreadPoolExecutor() as pool:
        assert sum(pool.map(run, (rows, rows[::-1], rows[200:] + rows[:200]))) == 400
    assert store.counts() == (400, {"pay": 400}, 40)
    assert list(store.scan_orders(0)) == fold(rows)


def test_who_finds_out_at_once_that_a_dsn_is_new_introduces_it_once(dialect, tmp_path, monkeypatch):
    dsns = fresh_dsns(dialect, tmp_path, 1)
    stores = [open_store(dsns, sql__timeout_s=20.0) for _ in range(2)]
    met = threading.Barrier(2)
    for store in stores:
        statements = store.dsns[0].statements

        def introduce(*account, really=statements.introduce):
            with suppress(threading.BrokenBarrierError):  # SQLite lets only one of them so far
                met.wait(1.0)
            really(*account)

        monkeypatch.setattr(statements, "introduce", introduce)
    with ThreadPoolExecutor() as pool:
        written = pool.map(lambda i: stores[i].write(0, [row(f"e{i}", shard=i)]).new, range(2))
        assert list(written) == [1, 1]
    assert stores[0].counts().events == 2


def test_rows_go_to_the_dsn_that_holds_their_shard_whatever_the_caller_thought(dialect, tmp_path):
    store = open_store(fresh_dsns(dialect, tmp_path, 2))
    rows = [row(f"e{i}", shard=i) for i in range(8)]
    assert store.write(0, [*rows, row("e7", shard=7, fingerprint="other---")]) == (8, [8])
    for dsn in (0, 1):
        assert [e for (e,) in store.scan_events(dsn, ["event_id"])] == [
            f"e{i}" for i in range(8) if i % 2 == dsn
        ]


def test_dsns_in_another_order_are_refused(dialect, tmp_path):
    dsns = fresh_dsns(dialect, tmp_path, 2)
    open_store(dsns).prepare()
    with pytest.raises(SettingError, match="order is fixed"):
        open_store(dsns[::-1]).write(0, [row("e")])
    with pytest.raises(SettingError, match="order is fixed"):
        open_store(dsns[::-1]).event("e")


def test_another_count_of_shards_is_refused(dialect, tmp_path):
    dsns = fresh_dsns(dialect, tmp_path, 1)
    open_store(dsns).prepare()
    with pytest.raises(SettingError, match="expected 8"):
        open_store(dsns, shards__count=16).write(0, [row("e")])


def test_a_dsn_added_later_holds_nothing_at_first(dialect, tmp_path):
    dsns = fresh_dsns(dialect, tmp_path, 3)
    open_store(dsns[:2]).write(0, [row("e1", shard=2)])
    more = open_store(dsns)
    more.write(2, [row("e2", shard=2)])  # 2 % 3 would be the new one
    assert [len(list(more.scan_events(i))) for i in range(3)] == [2, 0, 0]
    assert more.dsn_of(2) == 0
