"""Callbacks: what becomes of an answer that comes without a task. Those who share a connection or a question must not suffer from
one of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_LOG = logging.getLogger("clicktide.query")


def tell(then: Callable[[T], None], found: T) -> None:
    """Calls `then`; what it raises is logged, and keeps nobody from theirs."""
    try:
        then(found)
    except Exception:
        _LOG.exception("what was to become of an answer failed")


def awaited() -> tuple[asyncio.Future[T], Callable[[T | Exception], None]]:
    """A future, and the callback that settles it; whoever waited may have left."""
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def then(found: T | Exception) -> None:
        if future.done():
            return
        if isinstance(found, Exception):
            future.set_exception(found)
        else:
            future.set_result(found)

    return future, then
