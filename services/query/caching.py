"""Caching headers: which answers a client may keep, and for how long it may do without asking again.

Answers about users are never kept (`operations.answer`). Metrics carry a weak tag of their figures, without `as_of`: 304 says that
the figures are the same; only ranges that nothing can be added to any more are kept without asking.
"""

from __future__ import annotations

from hashlib import blake2s
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from services.operations import answer

CLOSED = "private, max-age=3600"
OPEN = "private, no-cache"
_NOT_FIGURES = frozenset({"as_of", "degraded"})


def tag_of(body: dict[str, Any]) -> str:
    """A weak entity tag of the body's figures."""
    figures = {name: value for name, value in body.items() if name not in _NOT_FIGURES}
    return f'W/"{blake2s(orjson.dumps(figures), digest_size=8).hexdigest()}"'


def is_known(request: Request, tag: str) -> bool:
    """Whether the client has what the tag stands for (`If-None-Match`, compared weakly)."""
    given = request.headers.get("if-none-match")
    if given is None:
        return False
    bare = tag.removeprefix("W/")
    return any(t.strip().removeprefix("W/") in {bare, "*"} for t in given.split(","))


def tagged(request: Request, body: dict[str, Any], tag: str, *, closed: bool) -> Response:
    """The body with its tag, or 304. What is degraded is not for keeping."""
    if body["degraded"]:
        return answer(body)
    return unless_known(request, body, tag, CLOSED if closed else OPEN)


def unless_known(request: Request, body: dict[str, Any], tag: str, control: str = "no-cache") -> Response:
    """The body with its tag, or 304."""
    headers = {"ETag": tag, "Cache-Control": control}
    if is_known(request, tag):
        return Response(status_code=304, headers=headers)
    return answer(body, headers=headers)
