"""Look-ups: an order, and where an event is.

Neither says whose it is, so all shards are asked, by their primary key.
"""

from __future__ import annotations

from functools import partial, reduce
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from clicktide import topics
from clicktide.errors import ClicktideError, StoreError
from clicktide.log.port import Log, Record, TopicPartition
from clicktide.orders import join
from clicktide.pseudonym import stored_id
from clicktide.read import lag, search
from clicktide.read.events import event_of
from clicktide.settings import Settings
from clicktide.shards import shard_of
from clicktide.sql import read
from services.operations import answer, identifier
from services.problems import ProblemError
from services.query.health import Health
from services.query.stores import Stores

_SEARCH_S = 2.0


class LookupsApi:
    """`health` says as of when, and what is away."""

    def __init__(self, settings: Settings, stores: Stores, health: Health) -> None:
        self._stores, self._health = stores, health
        self._shards = settings.integer("shards.count")
        self._stored_as = partial(stored_id, settings)
        self._prefix = settings.text("topics.prefix")
        self._group = settings.text("group")

    async def order(self, request: Request) -> Response:
        order_id = identifier(request, "order_id")
        parts, error = await self._stores.sql_everywhere(lambda c, shards: read.order(c, shards, order_id))
        if not parts:
            if error is not None:
                raise ProblemError("store_unavailable", str(error), retry_after=1)
            raise ProblemError("unknown_order", "no event of this order is stored")
        found = reduce(join, parts)
        steps = {"ordered": found.ordered, "paid": found.paid, "refunded": found.refunded}
        history = {
            name: {"at": step.at, "event_id": step.event, "amount": step.amount}
            for name, step in steps.items()
            if step is not None
        }
        return await self._answer(
            {"order_id": found.order_id, "user_id": found.user_id, "state": found.state, "history": history}
        )

    # Events

    async def event(self, request: Request) -> Response:
        event_id = identifier(request, "event_id")
        rows, sql_error = await self._stores.sql_everywhere(lambda c, shards: read.event(c, shards, event_id))
        row = rows[0] if rows else None
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
            return await self._answer(body)
        found, whole = await self._search(event_id, {**_ranges(waiting), **_ranges(dead, kept=True)})
        complete = complete and whole
        if found and await self._is_erased(found[-1].key):
            raise ProblemError("erased_event", "the event's user was erased", event_id=event_id)
        by_topic = {record.topic: record for record in found}
        retrying = next((r for t, r in by_topic.items() if self._tier(t)), None)
        if retrying is not None:
            return await self._answer({**body, "state": "retrying", "retrying": self._retrying(retrying)})
        if (record := by_topic.get(self._topic(topics.DEAD))) is not None:
            return await self._answer({**body, "state": "dead", "dead": _dead(record)})
        if self._topic(topics.EVENTS) in by_topic:
            return await self._answer({**body, "state": "waiting"})
        if sql_error is not None or not complete:
            detail = str(sql_error) if sql_error else "the log could not be searched to its end"
            raise ProblemError("store_unavailable", detail, retry_after=1, event_id=event_id)
        raise ProblemError(
            "unknown_event", "no store and no topic shows it", event_id=event_id, state="unknown"
        )

    async def _is_erased(self, key: bytes | None) -> bool:
        user_id = self._stored_as((key or b"").decode("utf-8", "replace"))
        try:
            return await self._stores.is_erased(shard_of(user_id, self._shards), user_id)
        except StoreError:
            return False  # then what the log shows is all that is known

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

    async def _answer(self, body: dict[str, Any]) -> Response:
        as_of = await self._health.as_of()
        return answer({"as_of": as_of, "degraded": self._health.degraded(), **body})


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
