"""What SQL says of a user's past, in both dialects, is what the events come to."""

from __future__ import annotations

import pytest
from sql_dialects import DIALECTS, fresh_dsns, open_store, row

from clicktide.member import counted_of
from clicktide.read.accounts import MOST, Ask, accounts
from clicktide.read.before import tally_before
from clicktide.read.tally import Tally

SHARD = 2


@pytest.fixture(params=DIALECTS)
def store(request, tmp_path):
    store = open_store(fresh_dsns(request.param, tmp_path, 2))
    yield store
    store.close()


@pytest.fixture
def rows(store):
    kinds = ["view", "pay", "refund", "cart", "order", "click", "pay"]
    rows = [
        row(
            f"e{i:02}",
            type=kinds[i % 7],
            user_id="u",
            occurred_at=1000 + i,
            category_id=[None, "7", "8"][i % 3],
            brand_id="b",
            # Their sum is no longer exact in a double.
            amount=10**12 - i if kinds[i % 7] in ("pay", "refund", "order") else None,
            order_id="o" if kinds[i % 7] in ("pay", "refund", "order") else None,
            province="北京" if i == 20 else None,
            gender="male" if i < 10 else "unknown",
        )
        for i in range(60)
    ]
    store.write(0, [*rows, row("x", user_id="other", occurred_at=5)])
    return rows


def asked(store, since, newest, user="u"):
    (found,) = store.at_owner(SHARD, lambda c: accounts(c, [Ask(SHARD, user, since, newest)]))
    return found


@pytest.mark.parametrize("since", [None, 1000, 1001, 1030, 1060])
def test_the_tally_is_that_of_the_rows_before(store, rows, since):
    before = [r for r in rows if since is None or r[3] < since]
    found = store.at_owner(SHARD, lambda c: tally_before(c, SHARD, "u", since))
    assert found.as_json() == Tally().add(map(counted_of, before)).as_json()
    if since is not None:
        assert asked(store, since, since - 1) == (len(before), 0, False)


def test_of_a_long_history_the_newest_are_summed_up_and_of_a_part_the_part(store, rows):
    def found(since, start, most):
        tally = store.at_owner(SHARD, lambda c: tally_before(c, SHARD, "u", since, start, most))
        return tally.types, tally.spend, tally.refunds, tally.first, tally.last

    def of(some):
        tally = Tally().add(map(counted_of, some))
        return tally.types, tally.spend, tally.refunds, tally.first, tally.last

    assert found(None, None, 10) == of(rows[-10:])
    assert found(1050, 1030, 50) == of(rows[30:50])
    assert found(1050, 1030, 5) == of(rows[45:50])
    assert found(1030, 1030, 50) == of([])


def test_inside_are_those_from_then_to_the_newest_that_redis_has(store, rows):
    assert rows
    assert asked(store, 1030, 1039).inside == 10
    assert asked(store, 1030, 2000).inside == 30
    assert asked(store, 0, 2000).inside == 60
    assert asked(store, 2000, 3000).inside == 0
    assert asked(store, 1030, None).inside == 30, "of what Redis has nothing of, all is missing there"


def test_of_another_user_there_is_nothing(store, rows):
    assert rows
    assert asked(store, 5000, 9000, "nobody") == (0, 0, False)


@pytest.mark.parametrize("n", [1, 2, 3, MOST, MOST + 5])
def test_those_who_ask_together_get_their_own_answers(store, rows, n):
    assert rows
    store.entomb(SHARD, "gone", 1)
    store.entomb(SHARD, "back", 1)
    store.entomb(SHARD, "back", 2, lifted=True)
    several = [
        (Ask(SHARD, "u", 1010, 1019), (10, 10, False)),
        (Ask(SHARD, "gone", 1010, None), (0, 0, True)),
        (Ask(SHARD, "u", 1059, 5000), (59, 1, False)),
        (Ask(SHARD, "back", 1010, 1019), (0, 0, False)),
        (Ask(SHARD, "other", 1010, None), (1, 0, False)),
        (Ask(SHARD, "u", 1050, None), (50, 10, False)),
    ]
    chosen = [several[i % len(several)] for i in range(n)]
    found = store.at_owner(SHARD, lambda c: accounts(c, [ask for ask, _ in chosen]))
    assert found == [account for _, account in chosen]
