"""Sessions: a user's events cut where they pause, newest session first, by pages.

Pure. Events that carry a session id belong together when it is the same, all others with each other; a pause of more than
`GAP_MS` ends a session either way. Pages by cursor give every session once, as long as the events stay as they are.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple
from zlib import crc32

import orjson

from clicktide.read.timelines import BadCursor
from clicktide.row import AMOUNT, EXTRA, ITEM_ID, OCCURRED_AT, TYPE, Position, Row, position_of

GAP_MS = 600_000
MAX_CARRIED = 64  # a cursor names so many sessions that reach below it
_NO_ID = -1
# Digest of a session id -> time (ms) of its oldest event that is in a session already shown.
Shown = dict[int, int]


class Place(NamedTuple):
    """Where the following page starts: strictly before a position, leaving out what still belongs to sessions shown."""

    before: Position
    shown: Shown


class Session:
    """One session; its events are added newest first."""

    __slots__ = ("closed", "counts", "end", "items", "newest", "session_id", "spend", "start")

    def __init__(self, session_id: str | None, newest: Row) -> None:
        self.session_id, self.newest = session_id, position_of(newest)
        self.start = self.end = newest[OCCURRED_AT]
        self.counts: Counter[str] = Counter()
        self.items: set[str] = set()
        self.spend = 0
        self.closed = False

    def add(self, row: Row) -> None:
        self.start = row[OCCURRED_AT]
        self.counts[row[TYPE]] += 1
        if row[ITEM_ID] is not None:
            self.items.add(row[ITEM_ID])
        if row[TYPE] == "pay":
            self.spend += row[AMOUNT]

    def as_json(self) -> dict[str, Any]:
        """As callers see it; `complete`: its first event has been read."""
        return {
            "session_id": self.session_id,
            "from": self.start,
            "to": self.end,
            "events": sum(self.counts.values()),
            "counts": dict(self.counts),
            "items": len(self.items),
            "spend": self.spend,
            "complete": self.closed,
        }


class Cutter:
    """Cuts rows, newest first, into a page of at most `limit` sessions. `after` is where the page before ended."""

    def __init__(self, limit: int, after: Place | None = None) -> None:
        self.sessions: list[Session] = []
        self._limit = limit
        self._shown: Shown = dict(after.shown) if after else {}
        self._open: dict[int, Session] = {}
        self._more = False
        self._last: Position | None = None

    @property
    def done(self) -> bool:
        """Whether nothing that follows can change the page."""
        return self._more and not self._open

    def feed(self, rows: Iterable[Row]) -> None:
        """The next rows, all older than those before."""
        for row in rows:
            if self.done:
                return
            at, session_id = row[OCCURRED_AT], session_id_of(row)
            key = _NO_ID if session_id is None else crc32(session_id.encode())
            self._last = position_of(row)
            self._close_before(at)
            if self._shown.get(key, at + GAP_MS + 1) - at <= GAP_MS:
                self._shown[key] = at
                continue
            session = self._open.get(key)
            if session is None:
                if len(self.sessions) == self._limit:
                    self._more = True
                    continue
                session = self._open[key] = Session(session_id, row)
                self.sessions.append(session)
            session.add(row)

    def end(self) -> None:
        """There are no more rows."""
        for session in self._open.values():
            session.closed = True
        self._open.clear()
        self._last = None

    def place(self) -> Place | None:
        """Where the following page starts; None when all sessions are shown."""
        before = self.sessions[-1].newest if self._more else self._last
        if before is None:
            return None
        shown = dict(self._shown)
        for session in self.sessions:  # of two with one id the older comes later
            key = _NO_ID if session.session_id is None else crc32(session.session_id.encode())
            shown[key] = session.start
        reaching = sorted((at, key) for key, at in shown.items() if at - before[0] <= GAP_MS)
        return Place(before, {key: at for at, key in reaching[:MAX_CARRIED]})

    def _close_before(self, at: int) -> None:
        for key in [k for k, session in self._open.items() if session.start - at > GAP_MS]:
            self._open.pop(key).closed = True


def session_id_of(row: Row) -> str | None:
    """The event's session id, None where it has none."""
    extra = row[EXTRA]
    if not extra or "session_id" not in extra:
        return None
    found = orjson.loads(extra).get("session_id")
    return found if isinstance(found, str) else None


def cursor_of(place: Place) -> str:
    """The place as opaque URL-safe text."""
    value = (*place.before, list(place.shown.items()))
    return urlsafe_b64encode(orjson.dumps(value)).rstrip(b"=").decode()


def place_from(cursor: str) -> Place:
    """Raises `BadCursor`."""
    try:
        at, event_id, shown = orjson.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        place = Place((at, event_id), {key: time for key, time in shown})  # noqa: C416 - checks the pairs
    except (ValueError, TypeError) as e:
        raise BadCursor("cursor: expected one from `next` of an earlier answer") from e
    numbers = (at, *place.shown, *place.shown.values())
    if not all(type(n) is int for n in numbers) or not isinstance(event_id, str):
        raise BadCursor("cursor: expected one from `next` of an earlier answer")
    return place
