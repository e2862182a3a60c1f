"""Pages: the live page and the documentation page, self-contained files that fetch nothing from elsewhere."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

_FOLDER = Path(__file__).with_name("assets")
# Nothing but ourselves: what a page shows of events can neither load nor send anything.
_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


async def live_page(request: Request) -> Response:
    return _page(request, "live.html")


async def docs_page(request: Request) -> Response:
    return _page(request, "docs.html")


@cache
def _read(name: str) -> tuple[bytes, str]:
    content = (_FOLDER / name).read_bytes()
    return content, f'"{sha256(content).hexdigest()[:16]}"'


def _page(request: Request, name: str) -> Response:
    content, tag = _read(name)
    headers = {
        "ETag": tag,
        "Cache-Control": "no-cache",
        "Content-Security-Policy": _POLICY,
        "X-Content-Type-Options": "nosniff",
    }
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type="text/html")
