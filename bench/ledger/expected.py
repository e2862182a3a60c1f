"""What the truth file says there must be.

Reads the events with rules of its own (design.md section 5), not with those of the pipeline: the referee must
not share the mistakes of those it judges.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from bench import truth

CONTENT = (
    "type",
    "user_id",
    "item_id",
    "category_id",
    "merchant_id",
    "brand_id",
    "order_id",
    "amount",
    "quantity",
    "gender",
    "age_range",
    "province",
    "channel",
)
TYPE, USER, CATEGORY, ORDER, AMOUNT, QUANTITY, GENDER, PROVINCE = (
    CONTENT.index(name)
    for name in ("type", "user_id", "category_id", "order_id", "amount", "quantity", "gender", "province")
)
Content = tuple[Any, ...]


class Fact(NamedTuple):
    """An accepted event: its time (ms), what it says in the order of CONTENT, whether the truth calls it late, and
    when it was meant to be sent (ms)."""

    occurred_at: int
    content: Content
    late: bool
    sent_at: int


class Expected:
    """The truth of one file, by id; `person` is what the stores call a user."""

    def __init__(self, person: Callable[[str], str] = str) -> None:
        self.person = person
        self.facts: dict[str, Fact] = {}
        self.unknown: set[str] = set()  # ids that may or may not have been accepted
        self.other_times: dict[str, set[int]] = {}  # of an event that was sent again with another occurred_at
        self.malformed: Counter[bytes] = Counter()  # digest of the bytes -> how often
        self.maybe_malformed: set[bytes] = set()
        self.samples: dict[bytes, str] = {}  # digest -> its first characters, for people
        self.duplicates: Counter[str] = Counter()  # id -> how often it was sent again
        self.kinds: Counter[str] = Counter()
        self.runs: set[str] = set()  # first parts of generated ids: no other event may have them
        self._words: dict[Any, Any] = {}

    def add(self, line: truth.TruthLine) -> None:
        """Take in one line of the truth."""
        self.kinds["unknown" if line.unknown else line.kind] += 1
        if line.raw is not None:
            key = digest(line.raw)
            self.samples[key] = line.raw[:60].decode("utf-8", "replace")
            if line.unknown:
                self.maybe_malformed.add(key)
            else:
                self.malformed[key] += 1
            return
        assert line.event is not None
        self._add_event(line, line.event)

    def _add_event(self, line: truth.TruthLine, event: dict[str, Any]) -> None:
        event_id = str(event["event_id"])
        occurred_at, content = fields_of(event, self._words, self.person)
        known = self.facts.get(event_id)
        if known is not None:
            if not line.unknown:
                self.duplicates[event_id] += 1
                self.unknown.discard(event_id)
            if occurred_at != known.occurred_at:
                self.other_times.setdefault(event_id, set()).add(occurred_at)
            return
        if line.kind == truth.DUPLICATE and not line.unknown:
            self.duplicates[event_id] += 1
        if line.unknown:
            self.unknown.add(event_id)
        self.facts[event_id] = Fact(occurred_at, content, line.kind == truth.LATE, line.at)
        prefix, _, number = event_id.rpartition("-")
        if prefix.startswith("g") and number.isdigit():
            self.runs.add(prefix)

    def times(self, event_id: str) -> set[int]:
        """Every occurred_at under which the event was sent."""
        return {self.facts[event_id].occurred_at, *self.other_times.get(event_id, ())}

    def is_of_a_run(self, event_id: str) -> bool:
        return event_id.rpartition("-")[0] in self.runs

    @property
    def counted_range(self) -> tuple[int, int] | None:
        """First and last occurred_at (ms) of the events that are not late; None where there are none."""
        times = [fact.occurred_at for fact in self.facts.values() if not fact.late]
        return (min(times), max(times)) if times else None


def load(path: Path, person: Callable[[str], str] = str) -> Expected:
    """Read a truth file; raises `TruthError` naming a line that is not of the format."""
    expected = Expected(person)
    for line in truth.read(path):
        expected.add(line)
    return expected


def digest(raw: bytes) -> bytes:
    return hashlib.blake2b(raw, digest_size=16).digest()


def fields_of(
    event: dict[str, Any], words: dict[Any, Any] | None = None, person: Callable[[str], str] = str
) -> tuple[int, Content]:
    """occurred_at (ms) and the content of an event object. `words` keeps one copy of each value, texts repeat a lot."""
    words = {} if words is None else words
    one_copy = words.setdefault
    content = [one_copy(value, value) for value in map(event.get, CONTENT)]
    content[USER] = person(str(content[USER]))
    if content[QUANTITY] is None:
        content[QUANTITY] = 1
    if content[GENDER] is None:
        content[GENDER] = "unknown"
    return _millis(event["occurred_at"]), tuple(content)


def _millis(time: int | str) -> int:
    if isinstance(time, int):
        return time
    since = dt.datetime.fromisoformat(time) - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return since // dt.timedelta(milliseconds=1)
