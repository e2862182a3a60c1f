"""Pages of dead letters, newest death first, by a cursor.

Promises: a page keeps places in memory, not letters, so a large `dead` costs little; a record that has died several times at one
stage stands once, at its last death, on one page.
"""

from __future__ import annotations

import binascii
import heapq
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from typing import Any

from clicktide.retry.letters import Key, Letter, Letters
from services.problems import ProblemError

# When it died (ms), and where it lies in `dead`: partition, offset.
Age = tuple[int, int, int]


def age_of(letter: Letter) -> Age:
    return (letter.record.timestamp, letter.record.partition, letter.record.offset)


def cursor_of(age: Age) -> str:
    return urlsafe_b64encode(".".join(map(str, age)).encode()).decode().rstrip("=")


def age_in(cursor: str) -> Age:
    """Raises a `bad_cursor` problem."""
    try:
        text = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)).decode("ascii")
        at, partition, offset = (int(part) for part in text.split(".") if len(part) < 20)
    except (ValueError, binascii.Error):
        raise ProblemError(
            "bad_cursor", "cursor: expected `next` of a page before", parameter="cursor"
        ) from None
    return (at, partition, offset)


def page(
    found: Iterable[Letter], letters: Letters, limit: int, before: Age | None
) -> tuple[list[dict[str, Any]], str | None, int]:
    """(the page, the next one's cursor, how many there are in all)."""
    newest: dict[Key, Age] = {}
    times: dict[Key, int] = {}
    for letter in found:
        newest[letter.key] = max(age_of(letter), newest.get(letter.key, (0, 0, 0)))
        times[letter.key] = times.get(letter.key, 0) + 1
    older = [age for age in newest.values() if before is None or age < before]
    ages = heapq.nlargest(limit, older)
    by_partition: dict[int, list[int]] = {}
    for _, partition, offset in ages:
        by_partition.setdefault(partition, []).append(offset)
    fetched = [x for p, offsets in by_partition.items() for x in letters.fetch(p, sorted(offsets))]
    fetched.sort(key=age_of, reverse=True)
    shown = [{**x.as_dict(), "times": times.get(x.key, 1)} for x in fetched]
    return shown, cursor_of(ages[-1]) if len(older) > len(ages) else None, len(newest)


def whole(letter: Letter) -> dict[str, Any]:
    """A letter with its bytes and headers."""
    headers = {name: value.decode("utf-8", "replace") for name, value in letter.record.headers}
    return {**letter.as_dict(), "value_base64": b64encode(letter.record.value).decode(), "headers": headers}
