"""Problems: every error answer, as an RFC 9457 problem document.

`CODES` is the registry: an answer never carries a code that is not in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"

# code -> (status, title)
CODES: dict[str, tuple[int, str]] = {
    "bad_request": (400, "The request cannot be read"),
    "bad_parameter": (400, "A parameter is not what it has to be"),
    "bad_cursor": (400, "The cursor is not one that this service gave"),
    "bad_body": (400, "The body cannot be read"),
    "all_rejected": (400, "No event of the request was accepted"),
    "key_missing": (401, "A key is needed"),
    "key_unknown": (401, "The key is not good"),
    "key_scope": (403, "The key is not for this"),
    "key_origin": (403, "The key is not for pages of this origin"),
    "key_in_address": (403, "Only write keys may stand in the address"),
    "not_found": (404, "There is nothing at this address"),
    "unknown_user": (404, "Nothing is stored of this user"),
    "erased_user": (404, "The user was erased"),
    "unknown_order": (404, "Nothing is stored of this order"),
    "unknown_letter": (404, "There is no such dead letter"),
    "unknown_event": (404, "The event is neither stored, nor waiting, nor dead"),
    "erased_event": (404, "The event's user was erased"),
    "method_not_allowed": (405, "The address does not take this method"),
    "body_timeout": (408, "The body did not arrive in time"),
    "busy": (409, "Another desk is at work"),
    "not_confirmed": (409, "What would be removed is not what was confirmed"),
    "too_large": (413, "The body is too large"),
    "too_many_events": (413, "The body holds too many events"),
    "unsupported_media_type": (415, "The media type is not taken"),
    "unsupported_encoding": (415, "The content encoding is not taken"),
    "rate_limited": (429, "Too much for now"),
    "user_rate_limited": (429, "Too many events of one user for now"),
    "overloaded": (429, "The collector has as much to do as it can hold"),
    "head_too_large": (431, "The request's head is too large"),
    "internal": (500, "The service failed; this is its own fault"),
    "log_unavailable": (503, "The broker did not acknowledge in time"),
    "store_unavailable": (503, "The stores that could answer are away"),
    "too_many_connections": (503, "There are too many connections"),
    "stopping": (503, "The service is stopping"),
}


class ProblemError(Exception):
    """Raised by a handler to answer with a problem. `retry_after` in seconds."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.code, self.detail, self.retry_after, self.headers, self.extra = (
            code,
            detail,
            retry_after,
            headers,
            extra,
        )

    def response(self) -> Response:
        return problem(
            self.code, self.detail, retry_after=self.retry_after, headers=self.headers, **self.extra
        )


def problem(
    code: str,
    detail: str,
    *,
    retry_after: int | None = None,
    headers: Mapping[str, str] | None = None,
    **extra: Any,
) -> Response:
    """The answer with that code of `CODES`; `extra` are members of the document beyond the standard's own."""
    status, title = CODES[code]
    body = {"type": f"urn:clicktide:problem:{code}", "title": title, "status": status, "detail": detail}
    out = dict(headers or {})
    if retry_after is not None:
        out["Retry-After"] = str(retry_after)
    return Response(orjson.dumps({**body, "code": code, **extra}), status, headers=out, media_type=MEDIA_TYPE)
