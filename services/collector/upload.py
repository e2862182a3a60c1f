"""The upload: `POST /v1/events`, from a body to per-event answers.

1. Refuse a key that is past its limit. 2. Read, inflate and split the body. 3. Check each event by itself. 4. Write the good
ones, wait for the broker. 5. Answer 202, 207 with one result an event, or 400. Whatever else happens, nothing is said to be
accepted. A key holds a part of the room and of the queue only, so the others always find some.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from clicktide import topics
from clicktide.errors import LogError, LogUnavailable
from clicktide.log.port import Outgoing
from clicktide.parse import Checked, Parser, Rejection
from clicktide.settings import Settings
from services.access.keyfile import Key
from services.access.limits import Quota, UserLimits
from services.collector.batcher import Batcher, Overloaded, Stopping
from services.collector.body import Limits, pieces, read, stated_length
from services.collector.limits import Room
from services.operations import answer
from services.problems import ProblemError
from services.telemetry import Telemetry

T = TypeVar("T")
# The one code that says: this event was fine, send it again later.
USER_LIMITED = "user_rate_limited"


class _Named(msgspec.Struct):
    event_id: Any = None


_named = msgspec.json.Decoder(_Named).decode


class Upload:
    """`now_ms` is the wall clock (ms), `clock` monotonic seconds."""

    def __init__(
        self,
        settings: Settings,
        batcher: Batcher,
        telemetry: Telemetry,
        now_ms: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._parser = Parser(settings)
        self._batcher, self._telemetry, self._now_ms, self._clock = batcher, telemetry, now_ms, clock
        self._topic = settings.text("topics.prefix") + topics.EVENTS
        self._limits = Limits(
            body=settings.integer("http.max_body_kb") * 1024,
            inflated=settings.integer("http.max_inflated_kb") * 1024,
            events=settings.integer("http.max_events"),
            seconds=settings.number("http.body_timeout_s"),
        )
        self._quota = Quota(
            "events", settings.number("http.max_rate"), settings.number("keys.write_rate"), clock
        )
        self._users = UserLimits(settings.number("http.user_rate"), settings.number("http.user_burst"))
        share = settings.number("keys.share")
        room = settings.integer("http.max_uploading_mb") * 1024 * 1024
        self.room = Room(room, room * share)
        # How many may wait in all is the batcher's to say.
        self._queue = Room(math.inf, settings.integer("http.queue_events") * share, "events")

    async def handler(self, request: Request) -> Response:
        key: Key | None = request.scope["state"].get("key")
        # A key past its limit costs no reading, inflating or parsing.
        self._refusing(lambda: self._quota.check(key), 1)
        length = stated_length(request)
        with self.room.held(None if key is None else key.id) as take:
            # Without a length the body may be as long as the limit.
            take(self._limits.body if length is None else min(length, self._limits.body))
            body = await read(request, self._limits)
            if request.headers.get("content-encoding"):
                take(len(body))
            return await self._handle(request, body, key)

    async def _handle(self, request: Request, body: bytes, key: Key | None) -> Response:
        found = pieces(body, request.headers.get("content-type", ""), self._limits)
        headers = self._refusing(lambda: self._quota.take(key, len(found)), len(found))
        received_at = self._now_ms()
        checked = [self._parser.check(piece, received_at) for piece in found]
        wait = self._spare_users(checked)
        good = [c for c in checked if isinstance(c, Checked)]
        if good:
            with self._queue.held(None if key is None else key.id) as take:
                self._refusing(lambda: take(len(good)), len(good))
                await self._write(good, request.scope["state"]["request_id"].encode())
        response = self._answer(found, checked, len(good), wait)
        response.headers.update(headers)
        return response

    def _refusing(self, ask: Callable[[], T], events: int) -> T:
        """What `ask` answers; a problem that it raises is counted."""
        try:
            return ask()
        except ProblemError as e:
            self._telemetry.turned_away.labels(e.code).inc(events)
            raise

    def _spare_users(self, checked: list[Checked | Rejection]) -> int:
        """Turns events of users past their limit into rejections; the seconds until one may come again."""
        if not self._users.on:
            return 0
        now, wait = self._clock(), 0.0
        for i, c in enumerate(checked):
            if isinstance(c, Checked) and (seconds := self._users.take(c.user_id, now)) > 0:
                wait = max(wait, seconds)
                detail = f"this user sends too much: send it again in {math.ceil(seconds)} s"
                checked[i] = Rejection(USER_LIMITED, detail)
        return math.ceil(wait)

    async def _write(self, good: list[Checked], request_id: bytes) -> None:
        headers = ((topics.REQUEST_ID, request_id),)
        records = [Outgoing(self._topic, c.user_id.encode(), c.value, headers) for c in good]
        try:
            await self._batcher.submit(records)
        except Overloaded as e:
            # Behind a broker that is away the queue fills as well: say which of the two it is.
            code = "overloaded" if self._batcher.log_up else "log_unavailable"
            raise self._turned_away(code, str(e), len(good)) from e
        except Stopping as e:
            raise self._turned_away("stopping", str(e), len(good)) from e
        except LogUnavailable as e:
            raise self._turned_away("log_unavailable", str(e), len(good)) from e
        except LogError as e:
            raise self._turned_away("log_unavailable", str(e), len(good)) from e
        self._telemetry.accepted.inc(len(good))

    def _turned_away(self, code: str, detail: str, events: int) -> ProblemError:
        self._telemetry.turned_away.labels(code).inc(events)
        return ProblemError(code, detail, retry_after=1 if code == "overloaded" else 2)

    def _answer(
        self, found: list[bytes], checked: list[Checked | Rejection], good: int, wait: int
    ) -> Response:
        again = {"Retry-After": str(wait)} if wait else {}
        for result in checked:
            if isinstance(result, Rejection):
                self._telemetry.rejected.labels(result.code).inc()
        if good == len(checked):
            return answer({"accepted": good}, 202)
        results = [_result(i, c, piece) for i, (c, piece) in enumerate(zip(checked, found, strict=True))]
        if good == 0:
            first = checked[0]
            if all(isinstance(c, Rejection) and c.code == USER_LIMITED for c in checked):
                raise ProblemError(
                    USER_LIMITED,
                    "the users of all these events send too much",
                    retry_after=wait,
                    accepted=0,
                    rejected=len(checked),
                    results=results,
                )
            detail = first.detail if isinstance(first, Rejection) else ""
            raise ProblemError(
                "all_rejected", detail, headers=again, accepted=0, rejected=len(checked), results=results
            )
        return answer({"accepted": good, "rejected": len(checked) - good, "results": results}, 207, again)


def _result(index: int, checked: Checked | Rejection, piece: bytes) -> dict[str, Any]:
    if isinstance(checked, Checked):
        return {
            "index": index,
            "event_id": checked.event_id,
            "status": "accepted",
            "code": None,
            "detail": None,
        }
    return {
        "index": index,
        "event_id": _id_of(piece),
        "status": "rejected",
        "code": checked.code,
        "detail": checked.detail,
    }


def _id_of(piece: bytes) -> str | None:
    """The id that a refused event gives itself, where it can be read, so that its sender finds it."""
    try:
        found = _named(piece).event_id
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    return found if isinstance(found, str) and len(found) <= 64 else None
