"""`/v1/dead`: the retry desk for admin keys.

Promises: every change is in the audit trail, with the key's id, before it happens; nothing is sent without `dry_run: false` and
nothing removed without the number that is to go; one request at a time works here, and none for longer than about
a minute.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from clicktide.errors import LogError, LogUnavailable, SettingError, StoreError
from clicktide.log.port import Log
from clicktide.retry import removal
from clicktide.retry.letters import Filter, Progress, checked_id
from clicktide.retry.replay import Selection
from clicktide.settings import Settings
from retry import work
from retry.audit import history
from retry.desk import READING, Desk, DeskBusy
from services.collector.body import Limits, read
from services.desk import pages
from services.desk.orders import ListQuery, PurgeOrder, ReplayOrder, filter_of
from services.operations import answer, message, parameters
from services.problems import ProblemError

T = TypeVar("T")
B = TypeVar("B", bound=msgspec.Struct)
_READ_S = 30.0
_SEND_S = 30.0
_LIMITS = Limits(body=256 * 1024, inflated=256 * 1024, events=1, seconds=10.0)
_SHOWN_REFUSED = 100


class DeskApi:
    """`now_ms` is the wall clock (ms), `clock` monotonic seconds."""

    def __init__(
        self,
        settings: Settings,
        log: Log,
        now_ms: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._log, self._now_ms, self._clock = settings, log, now_ms, clock
        self._prefix = settings.text("topics.prefix")
        self._audit = audit_file(settings)
        # The log's handles belong to one thread, and two requests at once would only wait for each other's lock.
        self._lane = ThreadPoolExecutor(1, thread_name_prefix="desk")

    async def list(self, request: Request) -> Response:
        query = parameters(request, ListQuery)
        wanted = filter_of(query, self._prefix)
        before = pages.age_in(query.cursor) if query.cursor else None

        def work_(desk: Desk) -> Response:
            as_of = self._now_ms()
            with desk.progress(READING) as moved:
                found = desk.letters.read(wanted, moved)
                letters, following, matching = pages.page(found, desk.letters, query.limit, before)
            return answer({"as_of": as_of, "letters": letters, "next": following, "matching": matching})

        return await self._at_desk(request, work_)

    async def show(self, request: Request) -> Response:
        name = self._name(str(request.path_params["id"]))

        def work_(desk: Desk) -> Response:
            with desk.progress(READING) as moved:
                found = list(desk.letters.read(Filter(ids=frozenset([name])), moved))
            past = history(desk.audit.path, name)
            if not found and not past:
                raise ProblemError("unknown_letter", f"there is no dead letter {name}")
            return answer({"id": name, "letters": [pages.whole(x) for x in found], "audit": past})

        return await self._at_desk(request, work_)

    async def replay(self, request: Request) -> Response:
        order = await _ordered(request, ReplayOrder)
        wanted = filter_of(order, self._prefix)
        if order.rate and order.limit / order.rate > _SEND_S:
            most = int(order.rate * _SEND_S)
            raise ProblemError(
                "bad_parameter",
                f"limit: at {order.rate:g} a second a request may send at most {most}; ask again for the rest",
                parameter="limit",
            )

        def work_(desk: Desk) -> Response:
            work.must_choose(wanted, all_=order.all, dry_run=order.dry_run)
            most = None if order.force else desk.policy.max_replays
            chosen = work.choose(desk, wanted, most, {}, force=order.force)
            matching, sent = len(chosen), 0
            if not order.dry_run and chosen:
                part = oldest(chosen, order.limit)
                sent = work.send(desk, part, {}, order.rate, keep=order.keep)
            refused = [{"id": i, "replays": n} for i, n in sorted(chosen.refused.items())[:_SHOWN_REFUSED]]
            return answer(
                {
                    "run": desk.run,
                    "dry_run": order.dry_run,
                    "matching": matching,
                    "sent": sent,
                    "left": 0 if order.dry_run else matching - sent,
                    "refused": refused,
                }
            )

        return await self._at_desk(request, work_)

    async def purge(self, request: Request) -> Response:
        order = await _ordered(request, PurgeOrder)
        wanted = filter_of(order, self._prefix)

        def work_(desk: Desk) -> Response:
            work.must_choose(wanted, all_=order.all, dry_run=order.confirm is None)
            chosen = work.choose(desk, wanted, None, {}, force=True)
            matching = len(chosen)
            removed = 0
            if order.confirm is None:
                rewritten = removal.survivors(desk.letters, chosen.by_partition(chosen.newest))
            elif order.confirm != matching:
                raise ProblemError(
                    "not_confirmed",
                    f"confirm: expected the number of letters that would go, {matching}, got {order.confirm}",
                    parameter="confirm",
                    matching=matching,
                )
            else:
                rewritten = work.remove(desk, chosen) if chosen else 0
                removed = matching
            return answer(
                {
                    "run": desk.run,
                    "dry_run": order.confirm is None,
                    "matching": matching,
                    "removed": removed,
                    "rewritten": rewritten,
                }
            )

        return await self._at_desk(request, work_)

    def close(self) -> None:
        self._lane.shutdown(wait=False, cancel_futures=True)

    def _name(self, text: str) -> str:
        try:
            return checked_id(text, self._prefix)
        except SettingError as e:
            raise ProblemError("bad_parameter", f"id: {e}", parameter="id") from e

    async def _at_desk(self, request: Request, work_: Callable[[Desk], T]) -> T:
        """`work_` at a desk of its own, in the desk's thread; what it raises as problems."""
        by = acting(request)
        return await asyncio.get_running_loop().run_in_executor(self._lane, lambda: self._work(by, work_))

    def _work(self, by: str, work_: Callable[[Desk], T]) -> T:
        try:
            desk = Desk(self._settings, self._log, self._audit, by, self._watched(self._clock() + _READ_S))
            try:
                return work_(desk)
            finally:
                desk.close()
        except DeskBusy as e:
            raise ProblemError("busy", str(e), retry_after=5) from e
        except work.NoSuchLetter as e:
            raise ProblemError("unknown_letter", str(e)) from e
        except (LogError, StoreError) as e:
            raise ProblemError("store_unavailable", str(e), retry_after=2) from e
        except SettingError as e:
            raise ProblemError("bad_parameter", str(e)) from e

    def _watched(
        self, deadline: float
    ) -> Callable[[str, Callable[[], None]], AbstractContextManager[Progress]]:
        def show(what: str, alive: Callable[[], None]) -> AbstractContextManager[Progress]:
            def moved(_done: int, _total: int) -> None:
                alive()
                # Only reading may be given up: what was sent has to be taken out of `dead` in any case.
                if what == READING and self._clock() > deadline:
                    raise LogUnavailable(
                        f"the dead letters could not be read within {_READ_S:g} s; narrow it by since"
                    )

            return nullcontext(moved)

        return show


def oldest(chosen: Selection, limit: int) -> Selection:
    """The first so many, in the order in which they lie in `dead`."""
    keys = sorted(chosen.newest, key=lambda key: chosen.newest[key][::-1])[:limit]
    return Selection(
        {k: chosen.newest[k] for k in keys}, {k: chosen.offsets[k] for k in keys}, chosen.refused
    )


def acting(request: Request) -> str:
    """Who asks, as the trail says it."""
    key = request.scope["state"].get("key")
    return "nobody's key" if key is None else f"key {key.id}"


def audit_file(settings: Settings) -> Path:
    """Where the desk's changes are written down: as set, else beside the embedded log, as `./tide dead` does."""
    if given := settings.text("retry.audit_file"):
        return Path(given).expanduser()
    folder = Path(settings.text("log.path")).parent if settings.text("log.adapter") == "embedded" else Path()
    return folder / "dead-audit.jsonl"


async def _ordered(request: Request, kind: type[B]) -> B:
    """The JSON body as `kind`. Raises problems 400, 408, 413, 415."""
    # Nothing else is taken: a page of another site can send text without asking, JSON it cannot.
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise ProblemError(
            "unsupported_media_type", f"Content-Type {media_type[:60]!r}: expected application/json"
        )
    body = await read(request, _LIMITS)
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as e:
        raise ProblemError("bad_parameter", message(str(e))) from None
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as e:
        raise ProblemError("bad_body", f"the body is not a JSON object: {str(e)[:200]}") from None
