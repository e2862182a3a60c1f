"""Orders: a join that does not care for order or repetition."""

from __future__ import annotations

from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clicktide.orders import Order, Transition, fold, join, order_of
from clicktide.row import COLUMNS

steps = st.none() | st.builds(
    Transition, st.integers(0, 3), st.sampled_from("ab😀"), st.integers(0, 2) | st.none()
)


def consistent(order: Order) -> Order:
    """One event has one amount: the amount follows from time and id."""
    fixed = [s and Transition(s.at, s.event, hash((s.at, s.event)) % 100) for s in order[3:]]
    return Order(*order[:3], *fixed)


orders = st.builds(Order, st.just(1), st.just("o"), st.sampled_from("uv"), steps, steps, steps).map(
    consistent
)


@given(orders, orders)
def test_commutative(a, b):
    assert join(a, b) == join(b, a)


@given(orders, orders, orders)
def test_associative(a, b, c):
    assert join(join(a, b), c) == join(a, join(b, c))


@given(orders, orders)
def test_idempotent(a, b):
    assert join(a, a) == a
    assert join(join(a, b), b) == join(a, b)


@given(st.lists(orders, min_size=1, max_size=5), st.data())
def test_any_permutation_and_repetition(seen, data):
    again = data.draw(st.permutations(seen + data.draw(st.lists(st.sampled_from(seen)))))
    assert reduce(join, again) == reduce(join, seen)


def row(kind, event_id="e", order_id="o", shard=1, at=5, amount=7, user="u"):
    values = dict.fromkeys(COLUMNS) | {
        "event_id": event_id,
        "type": kind,
        "user_id": user,
        "occurred_at": at,
        "shard": shard,
        "order_id": order_id,
        "amount": amount,
    }
    return [values[c] for c in COLUMNS]


@pytest.mark.parametrize(
    ("kinds", "state"),
    [
        ("order", "ordered"),
        ("pay", "paid"),
        ("refund", "refunded"),
        ("order pay", "paid"),
        ("refund order pay", "refunded"),
        ("pay order", "paid"),
    ],
)
def test_the_state_is_the_furthest_step_whatever_came_first(kinds, state):
    (order,) = fold([row(kind, event_id=kind) for kind in kinds.split()])
    assert order.state == state


def test_the_first_of_two_payments_counts_and_of_a_tie_the_smaller_id():
    (order,) = fold(
        [row("pay", "z", at=3), row("pay", "b", at=2), row("pay", "a", at=2), row("pay", "c", at=9)]
    )
    assert order.paid == (2, "a", 7)
    assert order.ordered is None


def test_only_money_rows_make_orders_one_each_sorted():
    rows = [
        row("view", order_id="x"),
        row("pay", order_id="b"),
        row("order", order_id="a"),
        row("pay", shard=0),
    ]
    assert [(o.shard, o.order_id) for o in fold(rows)] == [(0, "o"), (1, "a"), (1, "b")]
    assert order_of(rows[1]) == Order(1, "b", "u", paid=Transition(5, "e", 7))
    assert fold([]) == []
