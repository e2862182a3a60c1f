"""What is asked of one user: timeline, profile, sessions and purchases.

Promises: an answer asks one Redis slot and, where that cannot know everything, one DSN; with one of the two away it is what
the other has, and `degraded` says so. Pages by cursor have each event once, however many come meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from clicktide.errors import StoreError
from clicktide.read import sessions, timelines
from clicktide.read.events import encode, event_of, shown
from clicktide.read.timelines import BadCursor, Page, Printed, Wanted
from clicktide.row import MONEY_TYPES, Row
from clicktide.settings import Settings
from services.operations import Then, answer, identifier, parameters
from services.problems import ProblemError
from services.query.health import Health
from services.query.histories import Histories
from services.query.memory import Told
from services.query.ranges import moment
from services.query.stores import Stores

T = TypeVar("T")
Type = Literal["view", "click", "cart", "favorite", "order", "pay", "refund"]
_TimeText = Annotated[str, Meta(description="RFC 3339 time, or milliseconds since the epoch.")]
_Cursor = Annotated[str, Meta(max_length=4096, description="`next` of the page before.")]
# Sessions are cut from so many events at most; the rest of the longest one then counts as `complete: false`.
_MAX_ROWS = 2000
_STEP = 200
_PURCHASE = (
    "event_id",
    "type",
    "order_id",
    "item_id",
    "category_id",
    "merchant_id",
    "brand_id",
    "amount",
    "quantity",
)


class PageQuery(msgspec.Struct, forbid_unknown_fields=True):
    since: _TimeText | None = None
    until: _TimeText | None = None
    limit: Annotated[int, Meta(ge=1, le=200, description="Entries a page.")] = 50
    cursor: _Cursor | None = None


class TimelineQuery(PageQuery):
    type: Annotated[list[Type], Meta(description="Only these types, separated by commas.")] = []


class NoQuery(msgspec.Struct, forbid_unknown_fields=True):
    """No parameters."""


class UsersApi:
    """`now_ms` is the wall clock (ms), `clock` monotonic seconds."""

    def __init__(
        self,
        settings: Settings,
        stores: Stores,
        health: Health,
        now_ms: Callable[[], int],
        clock: Callable[[], float],
    ) -> None:
        self._health = health
        self._histories = Histories(settings, stores, now_ms, clock)

    async def timeline(self, request: Request) -> Response:
        user_id = identifier(request, "user_id")
        query = parameters(request, TimelineQuery)
        wanted = _wanted(query, frozenset(query.type))
        page = await self._asked(self._histories.page(user_id, wanted))
        await self._known(user_id, page.rows, narrowed=bool(query.type) or _narrowed(query))
        return await self._answer(user_id, _timeline(page))

    def timeline_soon(self, request: Request, then: Then) -> bool:
        user_id = identifier(request, "user_id")
        query = parameters(request, TimelineQuery)
        wanted = _wanted(query, frozenset(query.type))

        def answered(page: Page | Printed | None) -> Response | None:
            if page is None:
                return None
            if not _any(page) and not query.type and not _narrowed(query):
                return self._nobody(user_id)
            return self._told(user_id, _timeline(page))

        def found(page: Page | Printed | None) -> None:
            _tell(then, answered, page)

        return self._health.settled() and self._histories.page_soon(user_id, wanted, found)

    async def purchases(self, request: Request) -> Response:
        user_id = identifier(request, "user_id")
        query = parameters(request, PageQuery)
        page = await self._asked(self._histories.page(user_id, _wanted(query, MONEY_TYPES)))
        if not page.rows and not _narrowed(query):
            any_event = await self._asked(self._histories.page(user_id, Wanted(1)))
            await self._known(user_id, any_event.rows, narrowed=False)
        purchases = [_purchase(row) for row in page.rows]
        return await self._answer(user_id, {"purchases": purchases, "next": _next(page)})

    async def profile(self, request: Request) -> Response:
        user_id = identifier(request, "user_id")
        parameters(request, NoQuery)
        body = _profile(user_id, await self._asked(self._histories.tally(user_id)))
        await self._known(user_id, body["events"], narrowed=False)
        return await self._answer(user_id, body)

    def profile_soon(self, request: Request, then: Then) -> bool:
        user_id = identifier(request, "user_id")
        parameters(request, NoQuery)

        def answered(told: Told | None) -> Response | None:
            if told is None:
                return None
            body = _profile(user_id, told)
            return self._told(user_id, body) if body["events"] else self._nobody(user_id)

        return self._health.settled() and self._histories.tally_soon(
            user_id, lambda told: _tell(then, answered, told)
        )

    async def sessions(self, request: Request) -> Response:
        user_id = identifier(request, "user_id")
        query = parameters(request, PageQuery)
        after = None if query.cursor is None else _parsed(sessions.place_from, query.cursor)
        cutter = sessions.Cutter(query.limit, after)
        wanted = _wanted(query, frozenset(), None if after is None else after.before, limit=_STEP)
        read = 0
        while not cutter.done and read < _MAX_ROWS:
            try:
                page = await self._asked(self._histories.page(user_id, wanted))
            except ProblemError:
                if not read:
                    raise
                break  # the rest can be asked for when the store is back
            cutter.feed(page.rows)
            read += len(page.rows)
            if page.next is None:
                cutter.end()
                break
            wanted = wanted._replace(before=page.next)
        await self._known(user_id, cutter.sessions, narrowed=_narrowed(query))
        place = cutter.place()
        found = [session.as_json() for session in cutter.sessions]
        return await self._answer(
            user_id, {"sessions": found, "next": None if place is None else sessions.cursor_of(place)}
        )

    async def _asked(self, call: Any) -> Any:
        try:
            return await call
        except StoreError as e:
            raise ProblemError(
                "store_unavailable", str(e), retry_after=1, degraded=self._health.degraded()
            ) from e

    async def _known(self, user_id: str, found: Any, *, narrowed: bool) -> None:
        if found or narrowed:
            return
        raise _nothing_of(erased=await self._asked(self._histories.is_erased(user_id)))

    def _nobody(self, user_id: str) -> Response | None:
        """The answer of whom there is nothing; None where SQL has to be asked why."""
        erased = self._histories.erased_known(user_id)
        return None if erased is None else _nothing_of(erased=erased).response()

    async def _answer(self, user_id: str, body: dict[str, Any]) -> Response:
        await self._health.as_of(user_id)
        return self._told(user_id, body)

    def _told(self, user_id: str, body: dict[str, Any]) -> Response:
        health = self._health
        return answer(encode({"as_of": health.as_of_known(user_id), "degraded": health.degraded(), **body}))


def _tell(then: Then, answered: Callable[[T], Response | None], found: T) -> None:
    try:
        response = answered(found)
    except Exception:  # it comes again where it can be told
        response = None
    then(response)


def _nothing_of(*, erased: bool) -> ProblemError:
    if erased:
        return ProblemError("erased_user", "the user was erased; what comes of him is dropped")
    return ProblemError("unknown_user", "no event of this user is stored")


def _next(page: Page | Printed) -> str | None:
    return timelines.cursor_of(page.next) if page.next else None


def _any(page: Page | Printed) -> bool:
    return bool(page.text if isinstance(page, Printed) else page.rows)


def _timeline(page: Page | Printed) -> dict[str, Any]:
    events = msgspec.Raw(b"[" + page.text + b"]") if isinstance(page, Printed) else shown(page.rows)
    return {"events": events, "next": _next(page)}


def _profile(user_id: str, told: Told) -> dict[str, Any]:
    return {"approximate": not told.exact, "user_id": user_id, **told.tally.as_json(told.newer)}


def _narrowed(query: PageQuery) -> bool:
    return bool(query.since or query.until or query.cursor)


def _purchase(row: Row) -> dict[str, Any]:
    event = event_of(row)
    return {"at": event["occurred_at"], **{name: event.get(name) for name in _PURCHASE}}


def _parsed(parse: Callable[[str], T], cursor: str) -> T:
    try:
        return parse(cursor)
    except BadCursor as e:
        raise ProblemError("bad_cursor", str(e), parameter="cursor") from e


def _wanted(
    query: PageQuery,
    types: frozenset[str],
    before: tuple[int, str] | None = None,
    limit: int | None = None,
) -> Wanted:
    if before is None and query.cursor is not None:
        before = _parsed(timelines.position_from, query.cursor)
    return Wanted(
        query.limit if limit is None else limit,
        types,
        None if query.since is None else moment("since", query.since),
        None if query.until is None else moment("until", query.until),
        before,
    )
