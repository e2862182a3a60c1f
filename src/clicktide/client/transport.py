"""The transport: one request to the collector over a kept connection, and what its answer says of each event.

Promises: an event is taken for accepted only by the collector's own words; whatever else comes back, or does not, is
`Again` (send the same once more) or `Refused` (the request as a whole is not to be sent again).
"""

from __future__ import annotations

import gzip
import http.client
import json
import ssl
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from time import time
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from clicktide import __version__
from clicktide.client.errors import Again, Refused

_GZIP_FROM = 1024  # bytes; smaller bodies are not worth it
_MOST_READ = 4 * 1024 * 1024
_FOR_GOOD = frozenset({400, 413, 415, 422})
# Of a single event in an answer: not now, but later.
LATER = frozenset({"rate_limited", "user_rate_limited", "overloaded"})


class Rejection(NamedTuple):
    """Why an event was refused, in the collector's words."""

    code: str
    detail: str


class Verdicts(NamedTuple):
    """For each event None where it was accepted. `retry_after` (s) is for those that are to come again `LATER`."""

    of: list[Rejection | None]
    retry_after: float | None = None


class Transport:
    """For one thread. `url` is the collector's address, with the path in front of `/v1/events` if it has one."""

    def __init__(self, url: str, key: str | None, timeout_s: float, context: ssl.SSLContext | None) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in {"http", "https"} or not parts.hostname or port == -1:
            raise ValueError(f"url {url!r}: expected http://host:port or https://host")
        self._https, self._host, self._port = parts.scheme == "https", parts.hostname, port
        self._path = parts.path.rstrip("/").removesuffix("/v1/events") + "/v1/events"
        self._timeout = timeout_s
        self._context = context or (ssl.create_default_context() if self._https else None)
        self._headers = {
            "Content-Type": "application/x-ndjson",
            "User-Agent": f"clicktide-client/{__version__}",
        }
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._connection: http.client.HTTPConnection | None = None

    def post(self, texts: Sequence[bytes]) -> Verdicts:
        """What became of each event. Raises `Again`, `Refused`."""
        body, headers = b"\n".join(texts), self._headers
        if len(body) >= _GZIP_FROM:
            body, headers = gzip.compress(body, 1, mtime=0), {**headers, "Content-Encoding": "gzip"}
        reused = self._connection is not None
        try:
            try:
                status, said, data = self._ask(body, headers)
            except ConnectionError:
                if not reused:
                    raise
                # A kept connection that the other side has closed meanwhile is no failure yet.
                status, said, data = self._ask(body, headers)
        except (OSError, http.client.HTTPException) as e:
            raise Again(f"{type(e).__name__}: {e}") from e
        return _verdicts(status, said, data, len(texts))

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def forget(self) -> None:
        """After a fork: the connection is the parent's."""
        self._connection = None

    def _ask(self, body: bytes, headers: dict[str, str]) -> tuple[int, str | None, bytes]:
        if self._connection is None:
            self._connection = self._open()
        try:
            self._connection.request("POST", self._path, body, headers)
            answer = self._connection.getresponse()
            data = answer.read(_MOST_READ)
        except BaseException:
            self.close()
            raise
        if not answer.isclosed():
            self.close()
        return answer.status, answer.headers.get("Retry-After"), data

    def _open(self) -> http.client.HTTPConnection:
        if self._https:
            return http.client.HTTPSConnection(
                self._host, self._port, timeout=self._timeout, context=self._context
            )
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)


def _verdicts(status: int, retry_after: str | None, data: bytes, count: int) -> Verdicts:
    document, seconds = _document(data), seconds_of(retry_after, time())
    if status == 202 and document.get("accepted") == count:
        return Verdicts([None] * count)
    if status in {207, 400, 429}:
        results = document.get("results")
        if isinstance(results, list) and len(results) == count:
            return Verdicts([_verdict(result) for result in results], seconds)
    code, detail = str(document.get("code") or f"http_{status}"), str(document.get("detail") or "")
    if status in _FOR_GOOD:
        raise Refused(code, detail)
    raise Again(f"answered {status} {code} {detail}".rstrip(), seconds)


def _verdict(result: Any) -> Rejection | None:
    if isinstance(result, dict) and result.get("status") == "accepted":
        return None
    if not isinstance(result, dict) or result.get("status") != "rejected":
        raise Again("answered with something that the collector does not say")
    return Rejection(str(result.get("code")), str(result.get("detail") or ""))


def _document(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def seconds_of(retry_after: str | None, now: float) -> float | None:
    """A Retry-After header, seconds or a date; None where there is none that can be read. `now` in s since the epoch."""
    if retry_after is None:
        return None
    try:
        return (
            float(retry_after)
            if retry_after.strip().isdigit()
            else parsedate_to_datetime(retry_after).timestamp() - now
        )
    except (ValueError, TypeError):
        return None
