"""Sums events into buckets, as the ledger understands them: integers by start and field name.

The field names are those of `clicktide.keys`; the arithmetic is the ledger's own.
"""

from __future__ import annotations

from collections import defaultdict

SECOND, MINUTE, HOUR, DAY = 1, 60, 3600, 86400
Fields = dict[str, int]
Buckets = dict[int, Fields]  # start in s since the epoch -> fields; nothing is zero


class Sums:
    """Totals, and buckets of the events in [first, last] (s). Late events only count as late."""

    def __init__(self, first: int, last: int, seconds_from: int) -> None:
        self._first, self._last, self._seconds_from = first, last, seconds_from
        # One cell for all events of a minute that are alike: cheap to add to, and expanded at the end.
        self._cells: defaultdict[tuple[int, str, str, str, str], list[int]] = defaultdict(lambda: [0, 0])
        self._seconds: defaultdict[tuple[int, str, str], list[int]] = defaultdict(lambda: [0, 0])
        self.late = 0

    def add(
        self,
        occurred_at: int,
        event_type: str,
        gender: str,
        province: str | None,
        category: str | None,
        amount: int | None,
        *,
        late: bool,
        sign: int = 1,
    ) -> None:
        """Count one event (`sign` -1: take it away again)."""
        if late:
            self.late += sign
            return
        second = occurred_at // 1000
        day = second - second % DAY
        inside = self._first - self._first % DAY <= day <= self._last
        minute = second - second % MINUTE if inside else -1
        cell = self._cells[minute, event_type, gender, province or "", category or ""]
        cell[0] += sign
        cell[1] += sign * (amount or 0)
        if self._seconds_from <= second <= self._last:
            cell = self._seconds[second, event_type, gender]
            cell[0] += sign
            cell[1] += sign * (amount or 0)

    def buckets(self, size: int) -> Buckets:
        """Buckets of `size` seconds that lie in the range, whole ones."""
        first, last = self._first - self._first % size, self._last
        found: defaultdict[int, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
        if size == SECOND:
            for (second, event_type, gender), (n, amount) in self._seconds.items():
                _put(found[second], event_type, gender, None, None, n, amount)
        else:
            for (minute, event_type, gender, province, category), (n, amount) in self._cells.items():
                start = minute - minute % size
                if minute >= 0 and first <= start <= last:
                    _put(found[start], event_type, gender, province, category, n, amount)
        return {start: fields for start, counts in found.items() if (fields := _without_zeros(counts))}

    def totals(self) -> Fields:
        """Of all time: as `b:a`."""
        counts: defaultdict[str, int] = defaultdict(int)
        for (_, event_type, gender, province, category), (n, amount) in self._cells.items():
            _put(counts, event_type, gender, province, category, n, amount)
        counts["late"] += self.late
        return _without_zeros(counts)


def _put(
    counts: defaultdict[str, int],
    event_type: str,
    gender: str,
    province: str | None,
    category: str | None,
    n: int,
    amount: int,
) -> None:
    counts[f"n:{event_type}"] += n
    counts[f"g:{gender}"] += n
    if province is not None:
        counts[f"p:{province}"] += n
    if event_type == "pay":
        counts["gmv"] += amount
        if category is not None:
            counts[f"c:{category}"] += amount
    elif event_type == "refund":
        counts["refunds"] += amount


def _without_zeros(counts: dict[str, int]) -> Fields:
    return {name: n for name, n in counts.items() if n}
