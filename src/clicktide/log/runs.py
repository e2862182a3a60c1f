"""Runs: single offsets to read, as few stretches to read through.

Every offset asked for lies in one of the stretches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

# Reading over so many records that nobody asked for is cheaper than another start.
GAP = 1000


def runs(offsets: Sequence[int], gap: int = GAP) -> Iterator[tuple[int, int]]:
    """(first, last) of each stretch of these ascending offsets in which no two lie further apart than `gap`."""
    if not offsets:
        return
    first = last = offsets[0]
    for offset in offsets[1:]:
        if offset - last > gap:
            yield first, last
            first = offset
        last = offset
    yield first, last
