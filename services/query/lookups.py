"""Look-ups: a user's timeline, an order, and where an event is.

A timeline page asks one Redis slot and, where that does not fill it, one DSN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from clicktide import topics
from clicktide.errors import ClicktideError, StoreError
from clicktide.log.port import Log, Record, TopicPartition
from clicktide.orders import Order
from clicktide.read import lag, search, timelines
from clicktide.read.events import event_of
from clicktide.read.timelines import BadCursor, Page, Wanted
from clicktide.row import OCCURRED_AT, Row
from clicktide.settings import Settings
from clicktide.shards import shard_of
from clicktide.sql import Cursor
from services.operations import answer, identifier, parameters
from services.problems import ProblemError
from services.query.health import Health
from services.query.ranges import moment
from services.query.stores import Stores

_SEARCH_S = 2.0
Type = Literal["view", "click", "cart", "favorite", "order", "pay", "refund"]
_TimeText = Annotated[str, Meta(description="RFC 3339 time, or milliseconds since the epoch.")]


class TimelineQuery(msgspec.Struct, forbid_unknown_fields=True):
    type: Annotated[list[Type], Meta(description="Only these types, separated by commas.")] = []
    since: _TimeText | None = None
    until: _TimeText | None = None
    limit: Annotated[int, Meta(ge=1, le=200, description="Events a page.")] = 50
    cursor: Annotated[str, Meta(max_length=512, description="`next` of the page before.")] | None = None


class LookupsApi:
    """`now_ms` is the wall clock (ms)."""

    def __init__(self, settings: Settings, stores: Stores, health: Health, now_ms: Callable[[], int]) -> None:
        self._stores, self._health, self._now_ms = stores, health, now_ms
        self._namespace = settings.text("redis.namespace")
        self._shards = settings.integer("shards.count")
        self._ttl_ms = int(settings.number("timeline.ttl_h") * 3_600_000)
        self._prefix = settings.text("topics.prefix")
        self._group = settings.text("group")

    # Timelines

    async def timeline(self, request: Request) -> Response:
        user_id = identifier(request, "user_id")
        query = parameters(request, TimelineQuery)
        wanted = _wanted(query)
        page = await self._page(user_id, wanted)
        narrowed = query.type or query.since or query.until or query.cursor
        if not page.rows and not narrowed:
            raise ProblemError("unknown_user", "no event of this user is stored")
        return self._answer(
            {
                "events": [event_of(row) for row in page.rows],
                "next": timelines.cursor_of(page.next) if page.next else None,
            }
        )

    async def _page(self, user_id: str, wanted: Wanted) -> Page:
        shard = shard_of(user_id, self._shards)
        rows: list[Row] = []
        redis_error: StoreError | None = None
        try:
            rows = await self._stores.redis(timelines.recent(self._namespace, shard, user_id))
        except StoreError as e:
            redis_error = e
        matching = timelines.matching(rows, wanted)
        # A timeline older than its time to live may have left Redis once and come back in part.
        oldest = self._now_ms() - self._ttl_ms
        if len(matching) == wanted.limit and matching[-1][OCCURRED_AT] >= oldest:
            return timelines.page(matching, wanted.limit, more=True)
        before = None if wanted.before is None else Cursor(*wanted.before)
        try:
            stored = await self._stores.sql(
                self._stores.dsn_of(shard),
                lambda sql: sql.events_of_user(
                    shard, user_id, wanted.types or None, wanted.since, wanted.until, before, wanted.limit
                ),
            )
        except StoreError as e:
            if redis_error is not None or not matching:
                raise ProblemError(
                    "store_unavailable",
                    str(redis_error or e),
                    retry_after=1,
                    degraded=self._health.degraded(),
                ) from e
            return timelines.page(matching, wanted.limit, more=True)
        return timelines.page(timelines.merged(matching, stored, wanted.limit), wanted.limit, more=False)

    # Orders

    async def order(self, request: Request) -> Response:
        order_id = identifier(request, "order_id")
        try:
            found: Order | None = await self._stores.sql_everywhere(lambda sql: sql.order(order_id))
        except StoreError as e:
            raise ProblemError("store_unavailable", str(e), retry_after=1) from e
        if found is None:
            raise ProblemError("unknown_order", "no event of this order is stored")
        steps = {"ordered": found.ordered, "paid": found.paid, "refunded": found.refunded}
        history = {
            name: {"at": step.at, "event_id": step.event, "amount": step.amount}
            for name, step in steps.items()
            if step is not None
        }
        return self._answer(
            {"order_id": found.order_id, "user_id": found.user_id, "state": found.state, "history": history}
        )

    # Events

    async def event(self, request: Request) -> Response:
        event_id = identifier(request, "event_id")
        row, sql_error = await self._stored(event_id)
        # What is not stored may have been written a moment ago: only a fresh look knows the log's end.
        look = await self._health.look(fresh=row is None)
        waiting = {n: s for n, s in (look.standings or {}).items() if n != self._topic(topics.DEAD)}
        dead = {n: s for n, s in (look.standings or {}).items() if n == self._topic(topics.DEAD)}
        complete = look.standings is not None
        body: dict[str, Any] = {"event_id": event_id}
        if row is not None:
            # Its rows may be stored while its part in Redis still waits.
            body.update(state="stored", event=event_of(row))
            retries = {n: s for n, s in waiting.items() if n != self._topic(topics.EVENTS)}
            found, _ = await self._search(event_id, _ranges(retries))
            if found:
                body["retrying"] = self._retrying(found[-1])
            return self._answer(body)
        found, whole = await self._search(event_id, {**_ranges(waiting), **_ranges(dead, kept=True)})
        complete = complete and whole
        by_topic = {record.topic: record for record in found}
        retrying = next((r for t, r in by_topic.items() if self._tier(t)), None)
        if retrying is not None:
            return self._answer({**body, "state": "retrying", "retrying": self._retrying(retrying)})
        if (record := by_topic.get(self._topic(topics.DEAD))) is not None:
            return self._answer({**body, "state": "dead", "dead": _dead(record)})
        if self._topic(topics.EVENTS) in by_topic:
            return self._answer({**body, "state": "waiting"})
        if sql_error is not None or not complete:
            detail = str(sql_error) if sql_error else "the log could not be searched to its end"
            raise ProblemError("store_unavailable", detail, retry_after=1, event_id=event_id)
        raise ProblemError(
            "unknown_event", "no store and no topic shows it", event_id=event_id, state="unknown"
        )

    async def _stored(self, event_id: str) -> tuple[Row | None, StoreError | None]:
        try:
            return await self._stores.sql_everywhere(lambda sql: sql.event(event_id)), None
        except StoreError as e:
            return None, e

    async def _search(
        self, event_id: str, ranges: dict[TopicPartition, tuple[int, int]]
    ) -> tuple[list[Record], bool]:
        if not any(start < end for start, end in ranges.values()):
            return [], True

        def ask(log: Log) -> search.Found:
            consumer = log.consumer(self._group)
            try:
                return search.find(consumer, ranges, event_id, _SEARCH_S)
            finally:
                consumer.close()

        try:
            found = await self._stores.log(ask, "search", _SEARCH_S * 2)
        except ClicktideError:
            return [], False
        return found.records, found.complete

    def _retrying(self, record: Record) -> dict[str, Any]:
        return {
            "tier": self._tier(record.topic),
            "stage": lag.text_header(record, topics.STAGE),
            "attempt": lag.number_header(record, topics.ATTEMPT, 0),
            "due": lag.number_header(record, topics.NOT_BEFORE, record.timestamp),
            "code": lag.text_header(record, topics.ERROR_CODE),
            "error": lag.text_header(record, topics.ERROR),
        }

    def _topic(self, name: str) -> str:
        return self._prefix + name

    def _tier(self, topic: str) -> str | None:
        name = topic.removeprefix(self._prefix)
        return name.removeprefix("retry.") if name in topics.RETRY else None

    def _answer(self, body: dict[str, Any]) -> Response:
        return answer({"as_of": self._now_ms(), "degraded": self._health.degraded(), **body})


def _wanted(query: TimelineQuery) -> Wanted:
    try:
        before = None if query.cursor is None else timelines.position_from(query.cursor)
    except BadCursor as e:
        raise ProblemError("bad_cursor", str(e), parameter="cursor") from e
    return Wanted(
        query.limit,
        frozenset(query.type),
        None if query.since is None else moment("since", query.since),
        None if query.until is None else moment("until", query.until),
        before,
    )


def _ranges(
    standings: dict[str, list[lag.Standing]], *, kept: bool = False
) -> dict[TopicPartition, tuple[int, int]]:
    """What waits in each partition, or with `kept` all that is there."""
    return {
        TopicPartition(topic, s.partition): (s.earliest if kept else s.done, s.end)
        for topic, found in standings.items()
        for s in found
    }


def _dead(record: Record) -> dict[str, Any]:
    return {
        "stage": lag.text_header(record, topics.STAGE),
        "code": lag.text_header(record, topics.ERROR_CODE),
        "error": lag.text_header(record, topics.ERROR),
        "attempt": lag.number_header(record, topics.ATTEMPT, 0),
    }
