"""The ledger's own arithmetic, against numbers counted by hand."""

from __future__ import annotations

from bench.ledger.sums import DAY, HOUR, MINUTE, SECOND, Sums

NOON = 1_700_000_000 // DAY * DAY + 43_200  # s
BOTH = {"n:click": 1, "g:male": 1, "p:": 1}


def test_buckets_and_totals_by_hand():
    sums = Sums(NOON, NOON + 120, NOON)
    sums.add(NOON * 1000 + 10, "pay", "female", "四川", "c1", 500, late=False)
    sums.add(NOON * 1000 + 999, "pay", "female", "四川", "c1", 250, late=False)
    sums.add(NOON * 1000 + 61_000, "refund", "unknown", "四川", "c2", 200, late=False)
    sums.add(NOON * 1000, "order", "male", None, "c1", 900, late=False)
    sums.add((NOON - 3600) * 1000, "click", "male", None, None, None, late=False)  # same day, not in range
    sums.add((NOON - DAY) * 1000, "click", "male", None, None, None, late=False)  # another day
    sums.add(NOON * 1000, "pay", "male", None, None, 77, late=True)
    assert sums.buckets(SECOND) == {
        NOON: {"n:pay": 2, "n:order": 1, "g:female": 2, "g:male": 1, "gmv": 750},
        NOON + 61: {"n:refund": 1, "g:unknown": 1, "refunds": 200},
    }
    first = {
        "n:pay": 2, "n:order": 1, "g:female": 2, "g:male": 1, "p:四川": 2, "p:": 1, "gmv": 750, "c:c1": 750,
    }  # fmt: skip
    second = {"n:refund": 1, "g:unknown": 1, "p:四川": 1, "refunds": 200}
    assert sums.buckets(MINUTE) == {NOON: first, NOON + 60: second}
    hour = {**first, **second, "p:四川": 3}
    assert sums.buckets(HOUR) == {NOON: hour}
    day = {**hour, "n:click": 1, "g:male": 2, "p:": 2}
    assert sums.buckets(DAY) == {NOON - 43_200: day}
    assert sums.totals() == {**day, "n:click": 2, "g:male": 3, "p:": 3, "late": 1}


def test_taking_away_leaves_nothing():
    sums = Sums(NOON, NOON, NOON)
    for sign in (1, -1):
        sums.add(NOON * 1000, "pay", "male", "四川", "c1", 5, late=False, sign=sign)
        sums.add(NOON * 1000, "pay", "male", "四川", "c1", 5, late=True, sign=sign)
    assert (sums.totals(), sums.buckets(MINUTE), sums.buckets(SECOND)) == ({}, {}, {})
