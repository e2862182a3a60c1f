"""Makes shoppers' events on a fixed schedule: an endless pure iterator of records.

The same arguments give the same records, byte for byte. Record n is due at start + n / rate; its intended time is its
`occurred_at`, never the time it was really sent at. Kinds: a *duplicate* is an earlier record again (every second one
with another time within the same second), a *malformed* one is no event at all, a *late* one happened
longer ago than `late_after_h`.
"""

from __future__ import annotations

import itertools
import random
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from bench import catalogue, malformed
from bench.truth import DUPLICATE, GOOD, LATE, MALFORMED, Record

_HOUR_MS = 3_600_000
_LATE_SPREAD_MS = 9 * 24 * _HOUR_MS
_REMEMBERED = 2048  # the last records a duplicate is taken from
_PAID, _REFUNDED = 0.92, 0.04  # of the orders, of the paid ones
_ENDS = 1 / 12  # chance that a session ends after a step
_TIME = re.compile(rb'"occurred_at":(-?\d+)')
_OPEN_SESSIONS = 200
_EVENT = b'{"event_id":"%b-%d","type":"%b","user_id":"%b","occurred_at":%d,%b%b,"session_id":"s%b-%d"%b'


@dataclass(frozen=True, slots=True)
class Mix:
    """Shares of the records, each 0..1. `orders`: about so many are orders, nearly all of them then paid."""

    duplicates: float = 0.0
    malformed: float = 0.0
    late: float = 0.0
    orders: float = 0.05

    def problem(self) -> str | None:
        """What is wrong with the shares, if anything."""
        for name in ("duplicates", "malformed", "late", "orders"):
            if not 0 <= getattr(self, name) <= 1:
                return f"{name}: expected a share from 0 to 1, got {getattr(self, name):g}"
        if self.duplicates + self.malformed + self.late > 1:
            return "duplicates, malformed and late: expected at most 1 together"
        return "orders: expected at most 0.5" if self.orders > 0.5 else None

    def order_chance(self) -> float:
        """Chance of an order at a free step, given that pays and refunds take steps of their own."""
        follow = _PAID * (1 + _REFUNDED)
        return min(1.0, self.orders / (1 - follow * self.orders))


PLAIN = Mix()


@dataclass(slots=True)
class _Session:
    """A user on the way through the shop."""

    number: int
    person: catalogue.Person
    item: catalogue.Item
    viewed: bool = False
    pending: str = ""  # the next step, where the last one asks for it
    order_id: str = ""
    amount: int = 0
    quantity: int = 1


class _Shop:
    """Draws users and items by Zipf's law; makes each of them once."""

    def __init__(self, rng: random.Random, users: int, items: int) -> None:
        self._rng = rng
        self._users, self._user_weights = range(users), catalogue.zipf_weights(users, 0.8)
        self._items, self._item_weights = range(items), catalogue.zipf_weights(items, 1.0)
        self._people: dict[int, catalogue.Person] = {}
        self._goods: dict[int, catalogue.Item] = {}
        self._next_items: list[int] = []

    def person(self) -> catalogue.Person:
        n = self._rng.choices(self._users, cum_weights=self._user_weights)[0]
        found = self._people.get(n)
        if found is None:
            found = self._people[n] = catalogue.person(n)
        return found

    def item(self) -> catalogue.Item:
        if not self._next_items:
            self._next_items = self._rng.choices(self._items, cum_weights=self._item_weights, k=1024)
        n = self._next_items.pop()
        found = self._goods.get(n)
        if found is None:
            found = self._goods[n] = catalogue.item(n)
        return found


def events(
    seed: int,
    *,
    rate: float = 1000.0,
    start_ms: int = 1_700_000_000_000,
    run: str = "",
    mix: Mix = PLAIN,
    late_after_h: float = 168.0,
    users: int = 20_000,
    items: int = 5_000,
) -> Iterator[Record]:
    """Endless records. `run` makes event ids (`<run>-<n>`, n from 1) and order ids unique between runs."""
    rng = random.Random(seed)
    draw = rng.random
    shop = _Shop(rng, users, items)
    run = run or f"g{seed}"
    walk = _Walk(rng, shop, run, mix)
    recent: deque[Record] = deque(maxlen=_REMEMBERED)
    to_malformed, to_late = mix.duplicates + mix.malformed, mix.duplicates + mix.malformed + mix.late
    late_ms = int(late_after_h * _HOUR_MS) + _HOUR_MS
    n = 0
    while True:
        n += 1
        at = start_ms + int((n - 1) * 1000 / rate)
        chance = draw()
        if chance < mix.duplicates and recent:
            yield _again(rng, recent[rng.randrange(len(recent))], at)
            continue
        if mix.duplicates <= chance < to_malformed:
            kind = malformed.KINDS[rng.randrange(len(malformed.KINDS))]
            user = shop.person().user_id
            yield Record(MALFORMED, user, kind(b"%b-%d" % (run.encode(), n), user.encode(), at), at)
            continue
        late = to_malformed <= chance < to_late
        occurred_at = at - late_ms - rng.randrange(_LATE_SPREAD_MS) if late else at
        user, value = walk.step(n, occurred_at)
        record = Record(LATE if late else GOOD, user, value, at)
        if mix.duplicates:
            recent.append(record)
        yield record


def _again(rng: random.Random, earlier: Record, at: int) -> Record:
    """The record once more; every second time with another millisecond of the same second.

    Staying within the second keeps every bucket as it is, whichever of the two comes to be counted.
    """
    value = earlier.value
    if rng.random() < 0.5:
        found = _TIME.search(value)
        assert found is not None
        other = int(found[1]) // 1000 * 1000 + rng.randrange(1000)
        value = value[: found.start(1)] + b"%d" % other + value[found.end(1) :]
    return Record(DUPLICATE, earlier.user_id, value, at)


class _Walk:
    """Many sessions open at a time; each step is one event of one of them."""

    def __init__(self, rng: random.Random, shop: _Shop, run: str, mix: Mix) -> None:
        self._draw, self._shop, self._run, self._run_bytes = rng.random, shop, run, run.encode()
        self._order_chance = mix.order_chance()
        self._numbers = itertools.count(1)
        self._sessions = [self._session() for _ in range(_OPEN_SESSIONS)]

    def step(self, n: int, occurred_at: int) -> tuple[str, bytes]:
        """(user id, event) of the n-th record."""
        draw = self._draw
        place = int(draw() * _OPEN_SESSIONS)
        session = self._sessions[place]
        event_type = _step(draw(), session, self._order_chance)
        if event_type == "view" and session.viewed:
            session.item = self._shop.item()
        session.viewed = True
        money = b""
        if event_type in ("order", "pay", "refund"):
            money = _money(draw(), session, event_type, f"o{self._run}-{n}")
        value = _EVENT % (
            self._run_bytes,
            n,
            event_type.encode(),
            session.person.user_id.encode(),
            occurred_at,
            session.item.part,
            money,
            self._run_bytes,
            session.number,
            session.person.tail,
        )
        if not session.pending and draw() < _ENDS:
            self._sessions[place] = self._session()
        return session.person.user_id, value

    def _session(self) -> _Session:
        return _Session(next(self._numbers), self._shop.person(), self._shop.item())


def _step(chance: float, session: _Session, order_chance: float) -> str:
    """What the user does next."""
    if session.pending:
        step, session.pending = session.pending, ""
        return step
    if not session.viewed:
        return "view"
    if chance < order_chance:
        return "order"
    chance = (chance - order_chance) / (1 - order_chance)
    if chance < 0.45:
        return "view"
    return "click" if chance < 0.82 else "cart" if chance < 0.94 else "favorite"


def _money(chance: float, session: _Session, event_type: str, order_id: str) -> bytes:
    """The order's part of the event; says what is to follow."""
    if event_type == "order":
        session.order_id = order_id
        session.quantity = 1 if chance < 0.8 else 2 if chance < 0.95 else 3
        session.amount = session.item.price * session.quantity
        # the same draw decides: its position inside each share is as good as a new one
        session.pending = "pay" if (chance * 1000) % 1 < _PAID else ""
    elif event_type == "pay" and chance < _REFUNDED:
        session.pending = "refund"
    return b',"order_id":"%b","amount":%d,"quantity":%d' % (
        session.order_id.encode(),
        session.amount,
        session.quantity,
    )
