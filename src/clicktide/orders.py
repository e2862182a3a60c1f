"""Orders: the state of an order as a join of what was seen of it; pure.

For each of ordered, paid and refunded the transition with the smallest (time, event id) is kept. `join` is
commutative, associative and idempotent, so events may come late, twice and in any order: the result is the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from clicktide.row import AMOUNT, EVENT_ID, OCCURRED_AT, ORDER_ID, SHARD, TYPE, USER_ID, Row

State = Literal["ordered", "paid", "refunded"]


class Transition(NamedTuple):
    """One step of an order: when (ms), by which event, for how much (minor units)."""

    at: int
    event: str
    amount: int | None


class Order(NamedTuple):
    """What is known of an order; at least one of its transitions is there.

    Should two users of a shard claim one order, `user_id` is the smallest of them: any rule that commutes would do.
    """

    shard: int
    order_id: str
    user_id: str
    ordered: Transition | None = None
    paid: Transition | None = None
    refunded: Transition | None = None

    @property
    def state(self) -> State:
        """refunded over paid over ordered, whatever came first."""
        if self.refunded is not None:
            return "refunded"
        return "paid" if self.paid is not None else "ordered"


TRANSITION_OF = {"order": "ordered", "pay": "paid", "refund": "refunded"}


def order_of(row: Row) -> Order:
    """The order as this one row shows it; the row's type is order, pay or refund."""
    step = Transition(row[OCCURRED_AT], row[EVENT_ID], row[AMOUNT])
    return Order(row[SHARD], row[ORDER_ID], row[USER_ID], **{TRANSITION_OF[row[TYPE]]: step})


def join(a: Order, b: Order) -> Order:
    """The least that holds both; they are of the same order."""
    return Order(
        a.shard,
        a.order_id,
        min(a.user_id, b.user_id),
        _first(a.ordered, b.ordered),
        _first(a.paid, b.paid),
        _first(a.refunded, b.refunded),
    )


def fold(rows: Iterable[Row]) -> list[Order]:
    """The orders of `rows` that have one (type order, pay or refund), each once, sorted by shard and id."""
    found: dict[tuple[int, str], Order] = {}
    for row in rows:
        if row[TYPE] in TRANSITION_OF:
            order = order_of(row)
            key = (order.shard, order.order_id)
            known = found.get(key)
            found[key] = order if known is None else join(known, order)
    return [found[key] for key in sorted(found)]


def _first(a: Transition | None, b: Transition | None) -> Transition | None:
    if a is None or b is None:
        return a or b
    return a if (a.at, a.event) <= (b.at, b.event) else b
