"""The upload: `POST /v1/events`, from a body to per-event answers.

1. Read, inflate and split the body. 2. Check each event by itself. 3. Write the good ones, wait for the broker.
4. Answer 202, 207 with one result an event, or 400. Whatever else happens, nothing is said to be accepted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from clicktide import topics
from clicktide.errors import LogError, LogUnavailable
from clicktide.log.port import Outgoing
from clicktide.parse import Checked, Parser, Rejection
from clicktide.settings import Settings
from services.collector.batcher import Batcher, Overloaded, Stopping
from services.collector.body import Limits, pieces, read
from services.collector.limits import Room, TokenBucket
from services.operations import answer
from services.problems import ProblemError
from services.telemetry import Telemetry


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
        rate = settings.number("http.max_rate")
        self._bucket = TokenBucket(rate, max(rate, 1.0))
        self._room = Room(settings.integer("http.max_uploading_mb") * 1024 * 1024)

    async def handler(self, request: Request) -> Response:
        length = request.headers.get("content-length", "")
        with self._room.held() as take:
            # Without a length the body may be as long as the limit.
            take(min(int(length), self._limits.body) if length.isdigit() else self._limits.body)
            body = await read(request, self._limits)
            if request.headers.get("content-encoding"):
                take(len(body))
            return await self._handle(request, body)

    async def _handle(self, request: Request, body: bytes) -> Response:
        found = pieces(body, request.headers.get("content-type", ""), self._limits)
        self._admit(len(found))
        received_at = self._now_ms()
        checked = [self._parser.check(piece, received_at) for piece in found]
        good = [c for c in checked if isinstance(c, Checked)]
        if good:
            await self._write(good)
        return self._answer(found, checked, len(good))

    def _admit(self, events: int) -> None:
        wait = self._bucket.take(events, self._clock())
        if wait > 0:
            self._telemetry.turned_away.labels("rate_limited").inc(events)
            raise ProblemError(
                "rate_limited",
                "the collector's limit for all clients is reached",
                retry_after=math.ceil(wait),
            )

    async def _write(self, good: list[Checked]) -> None:
        records = [Outgoing(self._topic, c.user_id.encode(), c.value) for c in good]
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

    def _answer(self, found: list[bytes], checked: list[Checked | Rejection], good: int) -> Response:
        for result in checked:
            if isinstance(result, Rejection):
                self._telemetry.rejected.labels(result.code).inc()
        if good == len(checked):
            return answer({"accepted": good}, 202)
        results = [_result(i, c, piece) for i, (c, piece) in enumerate(zip(checked, found, strict=True))]
        if good == 0:
            first = checked[0]
            detail = first.detail if isinstance(first, Rejection) else ""
            raise ProblemError("all_rejected", detail, accepted=0, rejected=len(checked), results=results)
        return answer({"accepted": good, "rejected": len(checked) - good, "results": results}, 207)


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
