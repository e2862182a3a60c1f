"""Tallies: what a set of one user's events comes to, as a profile shows it.

Pure. A tally of some events and one of others add up to that of both, in any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from typing import Any

import msgspec

from clicktide.member import Counted
from clicktide.row import TYPES

TOP = 10
Known = tuple[int, str]  # when (ms), and what
Counts = dict[str, int]
Names = tuple[str, ...]


class Tally(msgspec.Struct, gc=False):
    """Counts and sums. `spend` and `refunds` are minor units; `first` and `last` ms, None of no event; what is known of the
    user is what the newest event that says so says. A service keeps thousands; none of them needs the garbage collector."""

    types: Counts = {}
    categories: Counts = {}
    brands: Counts = {}
    spend: int = 0
    refunds: int = 0
    first: int | None = None
    last: int | None = None
    province: Known | None = None
    gender: Known | None = None
    age_range: Known | None = None
    # Those that lead, once someone has asked for them; None after a change.
    best_categories: Names | None = None
    best_brands: Names | None = None

    def copy(self) -> Tally:
        out = copy(self)
        out.types, out.categories, out.brands = self.types.copy(), self.categories.copy(), self.brands.copy()
        return out

    def add(self, events: Iterable[Counted]) -> Tally:
        """Adds the events, in whatever order, and answers itself."""
        self._changed()
        types, categories, brands = self.types, self.categories, self.brands
        first, last = self.first, self.last
        province, gender, age_range = self.province, self.gender, self.age_range
        for event in events:
            kind, at = event.type, event.occurred_at
            types[kind] = types.get(kind, 0) + 1
            if (category := event.category_id) is not None:
                categories[category] = categories.get(category, 0) + 1
            if (brand := event.brand_id) is not None:
                brands[brand] = brands.get(brand, 0) + 1
            if kind == "pay":
                self.spend += event.amount or 0
            elif kind == "refund":
                self.refunds += event.amount or 0
            if first is None or at < first:
                first = at
            if last is None or at > last:
                last = at
            # They come newest first, so that hardly any after the first one says more.
            if province is None or at >= province[0]:
                province = _newer(province, _said(at, event.province))
            if gender is None or at >= gender[0]:
                gender = _newer(gender, _said(at, _gender(event.gender)))
            if age_range is None or at >= age_range[0]:
                age_range = _newer(age_range, _said(at, event.age_range))
        self.first, self.last = first, last
        self.province, self.gender, self.age_range = province, gender, age_range
        return self

    def group(self, kind: str, category: str | None, brand: str | None, n: int, amount: int) -> None:
        """Adds `n` events of one type, category and brand, whose amounts come to `amount`."""
        self._changed()
        _more(self.types, kind, n)
        if category is not None:
            _more(self.categories, category, n)
        if brand is not None:
            _more(self.brands, brand, n)
        if kind == "pay":
            self.spend += amount
        elif kind == "refund":
            self.refunds += amount

    def plus(self, other: Tally) -> Tally:
        """What the two come to together, as a tally of its own."""
        out = self.copy()
        out._changed()  # noqa: SLF001 - it is one of us
        for mine, more in (
            (out.types, other.types),
            (out.categories, other.categories),
            (out.brands, other.brands),
        ):
            for key, n in more.items():
                _more(mine, key, n)
        out.spend += other.spend
        out.refunds += other.refunds
        if other.first is not None and other.last is not None:
            out.seen(other.first, other.last)
        out.province, out.gender = _newer(out.province, other.province), _newer(out.gender, other.gender)
        out.age_range = _newer(out.age_range, other.age_range)
        return out

    def seen(self, first: int, last: int) -> None:
        """Widens the time to [first, last] ms."""
        if self.first is None or first < self.first:
            self.first = first
        if self.last is None or last > self.last:
            self.last = last

    def know(self, at: int, province: str | None, gender: str | None, age_range: str | None) -> None:
        """What an event at that time says of the user; the newest wins, of two at once the larger text."""
        self.province = _newer(self.province, _said(at, province))
        self.gender = _newer(self.gender, _said(at, _gender(gender)))
        self.age_range = _newer(self.age_range, _said(at, age_range))

    def _changed(self) -> None:
        self.best_categories = self.best_brands = None

    @property
    def events(self) -> int:
        return sum(self.types.values())

    def as_json(self, newer: Sequence[Counted] = ()) -> dict[str, Any]:
        """The tally of its own events and those of `newer`, as a profile's members, but for the user's id. Changes nothing."""
        more = Tally().add(newer)
        if self.best_categories is None:
            self.best_categories = _leading(self.categories)
        if self.best_brands is None:
            self.best_brands = _leading(self.brands)
        counts = {t: self.types.get(t, 0) + more.types.get(t, 0) for t in TYPES}
        first = [t.first for t in (self, more) if t.first is not None]
        last = [t.last for t in (self, more) if t.last is not None]
        return {
            "events": sum(counts.values()),
            "counts": counts,
            "spend": self.spend + more.spend,
            "refunds": self.refunds + more.refunds,
            "categories": _top("category_id", self.categories, self.best_categories, more.categories),
            "brands": _top("brand_id", self.brands, self.best_brands, more.brands),
            "first_seen": min(first, default=None),
            "last_seen": max(last, default=None),
            "province": _newest(self.province, more.province, None),
            "gender": _newest(self.gender, more.gender, "unknown"),
            "age_range": _newest(self.age_range, more.age_range, None),
        }


def _more(counts: Counts, key: str, n: int) -> None:
    counts[key] = counts.get(key, 0) + n


def _said(at: int, what: str | None) -> Known | None:
    return None if what is None else (at, what)


def _gender(said: str | None) -> str | None:
    return None if said == "unknown" else said


def _newest(one: Known | None, other: Known | None, unknown: str | None) -> str | None:
    known = _newer(one, other)
    return unknown if known is None else known[1]


def _newer(one: Known | None, other: Known | None) -> Known | None:
    return one or other if one is None or other is None else max(one, other)


def _leading(counts: Counts) -> Names:
    """The keys of the `TOP` largest, and of those alike by name."""
    # Sorting bare numbers first is several times cheaper than comparing pairs of some hundred brands.
    least = sorted(counts.values(), reverse=True)[:TOP]
    best = [(-n, key) for key, n in counts.items() if n >= least[-1]] if least else []
    return tuple([key for _, key in sorted(best)[:TOP]])


def _top(name: str, counts: Counts, leading: Names, more: Counts) -> list[dict[str, Any]]:
    # Only what has grown can get before what leads already, and only if it has grown enough.
    found = {key: counts[key] for key in leading}
    least = found[leading[-1]] if len(leading) == TOP else 0
    for key, n in more.items():
        total = counts.get(key, 0) + n
        if total >= least:
            found[key] = total
    best = [(-n, key) for key, n in found.items()]
    best.sort()
    return [{name: key, "events": -n} for n, key in best[:TOP]]
