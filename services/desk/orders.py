"""Orders: what the desk's requests may say, and the answers they get."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from clicktide.errors import SettingError
from clicktide.retry.letters import Filter, checked_id
from services.problems import ProblemError
from services.query.ranges import moment

_Text = Annotated[str, Meta(max_length=128)]
_Stage = Annotated[
    str, Meta(max_length=128, description="A stage (parse, redis, mysql.17, poison), or mysql for all of it.")
]
_Code = Annotated[str, Meta(max_length=128, description="An error code.")]
_Since = Annotated[str, Meta(max_length=64, description="Died at or after: RFC 3339 with an offset, or ms.")]
_Until = Annotated[str, Meta(max_length=64, description="Died before; as since.")]
_Topic = Annotated[str, Meta(max_length=128, description="First written to this topic: events, backfill.")]


class Chosen(msgspec.Struct, forbid_unknown_fields=True):
    """Which letters; what is absent does not matter."""

    stage: _Stage | None = None
    code: _Code | None = None
    since: _Since | None = None
    until: _Until | None = None
    user: _Text | None = None
    topic: _Topic | None = None


class ListQuery(Chosen):
    limit: Annotated[int, Meta(ge=1, le=200, description="Letters a page.")] = 50
    cursor: Annotated[str, Meta(max_length=128, description="`next` of the page before.")] | None = None


class Order(Chosen):
    """`all` must be true where nothing else says which letters."""

    ids: Annotated[list[_Text], Meta(max_length=1000)] = []
    all: bool = False


class ReplayOrder(Order):
    """`dry_run` is true unless said otherwise. `rate` letters a second, 0 for no limit; at most `limit` go, the oldest first."""

    dry_run: bool = True
    rate: Annotated[float, Meta(ge=0, le=100_000)] = 0.0
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 1000
    force: bool = False
    keep: bool = False


class PurgeOrder(Order):
    """Without `confirm` nothing is removed: the answer says how many would be. `confirm` is that number."""

    confirm: Annotated[int, Meta(ge=0)] | None = None


class Listed(msgspec.Struct):
    """Newest death first. `records` of the topic match, `letters` of them differ: one may have died more than once."""

    as_of: int
    letters: list[dict[str, Any]]
    next: str | None
    matching: int


class Shown(msgspec.Struct):
    """One record: its letters, oldest first, with their bytes (`value_base64`) and headers, and its audit trail."""

    id: str
    letters: list[dict[str, Any]]
    audit: list[dict[str, Any]]


class Refused(msgspec.Struct):
    id: str
    replays: int


class Replayed(msgspec.Struct):
    """`matching` may be replayed, `sent` were, `left` were not because of `limit`; `refused` have been replayed too often."""

    run: str
    dry_run: bool
    matching: int
    sent: int
    left: int
    refused: list[Refused]


class Purged(msgspec.Struct):
    """`rewritten`: letters that stay and lay before them, written again at the end."""

    run: str
    dry_run: bool
    matching: int
    removed: int
    rewritten: int


class Gone(msgspec.Struct):
    """Events of the timeline in Redis, rows of events and of orders in SQL, dead letters."""

    redis: int
    mysql: int
    orders: int
    dead: int


class Left(msgspec.Struct):
    """Records that stay in the retry topics until their retention; they count as erased."""

    retry: int


class Erased(msgspec.Struct):
    """What was erased. All zeros for a user of whom nothing was stored; events that come later are dropped all the same."""

    as_of: int
    user_id: str
    erased: Gone
    left: Left


def filter_of(order: Chosen, prefix: str) -> Filter:
    """The filter that it means. Raises a `bad_parameter` problem."""
    ids: frozenset[str] = frozenset()
    if isinstance(order, Order):
        try:
            ids = frozenset(checked_id(i, prefix) for i in order.ids)
        except SettingError as e:
            raise ProblemError("bad_parameter", f"ids: {e}", parameter="ids") from e
    made = Filter(
        stage=order.stage or None,
        code=order.code or None,
        since=0 if order.since is None else moment("since", order.since),
        until=0 if order.until is None else moment("until", order.until),
        user=order.user or None,
        topic=order.topic.removeprefix(prefix) if order.topic else None,
        ids=ids,
    )
    if made.until and made.until <= made.since:
        raise ProblemError("bad_parameter", "until: expected a time after since", parameter="until")
    return made
