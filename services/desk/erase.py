"""`DELETE /v1/users/{id}`: erases a user, for admin keys.

Promises: an answer of 200 means that the stores hold nothing of the user and take nothing more of him; after any other answer the
same request goes on where it stood. The trail says by which key and how much, never who.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from starlette.requests import Request
from starlette.responses import Response

from clicktide.erasure import Erasure, Report
from clicktide.errors import LogError, StoreError
from clicktide.log.port import Log
from clicktide.settings import Settings
from retry.audit import Audit
from retry.desk import Desk, DeskBusy
from retry.work import remove_user
from services.desk.api import acting, audit_file
from services.operations import answer, identifier
from services.problems import ProblemError


class EraseApi:
    """`now_ms` is the wall clock (ms)."""

    def __init__(self, settings: Settings, log: Log, now_ms: Callable[[], int]) -> None:
        self._settings, self._log, self._now_ms = settings, log, now_ms
        # One at a time: each waits for Redis to sync.
        self._lane = ThreadPoolExecutor(1, thread_name_prefix="erase")

    async def erase(self, request: Request) -> Response:
        user_id = identifier(request, "user_id")
        by = acting(request)
        found = await asyncio.get_running_loop().run_in_executor(self._lane, self._erase, user_id, by)
        return answer(
            {
                "as_of": self._now_ms(),
                "user_id": user_id,
                "erased": {
                    "redis": found.redis,
                    "mysql": found.mysql,
                    "orders": found.orders,
                    "dead": found.dead,
                },
                "left": {"retry": found.retry},
            }
        )

    def close(self) -> None:
        self._lane.shutdown(wait=False, cancel_futures=True)

    def _erase(self, user_id: str, by: str) -> Report:
        trail = Audit(audit_file(self._settings), f"erase-{self._now_ms()}", self._now_ms, by)
        try:
            trail.acts("erase", [{"state": "begun"}])
            work = Erasure(self._settings, self._now_ms, time.sleep)
            try:
                found = work.erase(user_id, self._log)
            finally:
                work.close()
            desk = Desk(self._settings, self._log, audit_file(self._settings), by)
            try:
                found = found._replace(dead=remove_user(desk, user_id))
            finally:
                desk.close()
            trail.acts("erase", [{"state": "done", **found._asdict()}])
        except DeskBusy as e:
            raise ProblemError("busy", f"{e}; nothing is lost: ask again, it goes on", retry_after=5) from e
        except (StoreError, LogError) as e:
            raise ProblemError(
                "store_unavailable", f"{e}; nothing is lost: ask again, it goes on", retry_after=2
            ) from e
        return found
