"""The tracker: serves `/tide.js`, the script that pages of other origins include.

Promises: the same bytes for every caller (nothing of a request goes into them), compressed once; caches may keep it for
`FRESH_S` and ask again by its ETag; any origin may load it, with subresource integrity too.
"""

from __future__ import annotations

import gzip
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from services.operations import Operation

FILE = Path(__file__).resolve().parent.parent / "assets" / "tide.min.js"
# An hour: a new version is everywhere soon, and a visit costs one request. Stale for a day where we are away: an old tracker
# is better than none.
FRESH_S = 3600
_CACHE = f"public, max-age={FRESH_S}, stale-while-revalidate=86400, stale-if-error=86400"


class _Script(NamedTuple):
    plain: bytes
    gzipped: bytes
    tag: str


@cache
def _script() -> _Script:
    plain = FILE.read_bytes()
    return _Script(plain, gzip.compress(plain, 9, mtime=0), sha256(plain).hexdigest()[:16])


async def serve(request: Request) -> Response:
    """The script, 304 where the caller has it."""
    script = _script()
    zipped = "gzip" in request.headers.get("accept-encoding", "")
    # Two forms of one thing are told apart by their tags, or a cache would mix them up.
    tag = f'"{script.tag}-gzip"' if zipped else f'"{script.tag}"'
    headers = {
        "ETag": tag,
        "Cache-Control": _CACHE,
        "Vary": "Accept-Encoding",
        "Access-Control-Allow-Origin": "*",
        "Cross-Origin-Resource-Policy": "cross-origin",
        "X-Content-Type-Options": "nosniff",
    }
    asked = {part.strip().removeprefix("W/") for part in request.headers.get("if-none-match", "").split(",")}
    if tag in asked or "*" in asked:
        return Response(status_code=304, headers=headers)
    if zipped:
        headers["Content-Encoding"] = "gzip"
    return Response(script.gzipped if zipped else script.plain, headers=headers, media_type="text/javascript")


def operation() -> Operation:
    return Operation(
        "GET",
        "/tide.js",
        "The browser tracker.",
        "collector",
        serve,
        answers={200: str},
        media_type="text/javascript",
    )
