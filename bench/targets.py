"""Where traffic goes: the collector by HTTP, or the log itself. One contract for both.

`send` answers for each record None (accepted, for good) or a code (refused, for good). It raises `Away` when the fate of
some is not known or nothing was taken: the same records are then sent again, with the same ids. It raises
`Refused` when the records were refused together, which says nothing of each: they are then sent in halves.
"""

from __future__ import annotations

import gzip
import http.client
import socket
import ssl
import time
from collections.abc import Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

import orjson

from bench.truth import Record
from clicktide import topics
from clicktide.errors import ClicktideError, LogUnavailable, RecordTooLarge
from clicktide.log import open_log
from clicktide.log.port import LogProducer, Outgoing
from clicktide.settings import Settings

MAX_RECORDS = 500  # in one request; the collector takes 1000
MAX_BYTES = 900_000  # in one request, before gzip; the collector takes 1 MiB
_GZIP_FROM = 2048  # bytes; smaller bodies are not worth it
_TIMEOUT_S = 15.0
_AWAY_STATUS = frozenset({408, 425, 429})
_KEY_STATUS = frozenset({401, 403})


class TargetError(ClicktideError):
    """The target will never take what is sent like this: a wrong address, a missing key, no such topic."""

    code = "target"


class Away(Exception):
    """Not now. `maybe_taken`: some of the records may have been accepted all the same."""

    def __init__(self, reason: str, *, retry_after_s: float | None = None, maybe_taken: bool = True) -> None:
        super().__init__(reason)
        self.retry_after_s, self.maybe_taken = retry_after_s, maybe_taken


class Refused(Exception):
    """All records of one request were refused with one code."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Connection(Protocol):
    """One lane's way to the target; used by one thread."""

    def send(self, records: Sequence[Record]) -> Sequence[str | None]: ...

    def close(self) -> None: ...


class Target(Protocol):
    """Where to send; `name` is for people. `lanes`: how many are best to send as fast as it takes records; `paced_lanes`: at a fixed rate."""

    name: str
    lanes: int
    paced_lanes: int

    def probe(self, patience_s: float) -> None:
        """Return when it answers; raise `TargetError` when it does not within `patience_s`."""

    def connect(self) -> Connection: ...

    def close(self) -> None: ...


class HttpTarget:
    """The collector's `POST /v1/events`, as NDJSON, over a kept connection for each lane."""

    lanes, paced_lanes = 4, 2

    def __init__(self, url: str, write_key: str = "") -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
            raise TargetError(f"--to {url}: expected http://host:port or kafka")
        self._https, self._host = parts.scheme == "https", parts.hostname
        self._port = port or (443 if self._https else 80)
        self._path = parts.path if parts.path not in ("", "/") else "/v1/events"
        self._key = write_key
        self.name = f"{parts.scheme}://{self._host}:{self._port}{self._path}"

    def probe(self, patience_s: float) -> None:
        until = time.monotonic() + patience_s
        while True:
            try:
                socket.create_connection((self._host, self._port), timeout=max(0.5, patience_s)).close()
            except OSError as e:
                if time.monotonic() < until and not isinstance(e, socket.gaierror):
                    time.sleep(0.2)
                    continue
                reason = e.strerror or str(e)
                raise TargetError(f"nothing answers at {self.name} ({reason}); is it running?") from e
            else:
                return

    def connect(self) -> Connection:
        return _HttpConnection(self._open(), self._path, self._key)

    def close(self) -> None: ...

    def _open(self) -> http.client.HTTPConnection:
        if self._https:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(self._host, self._port, timeout=_TIMEOUT_S, context=context)
        return http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT_S)


class _HttpConnection:
    def __init__(self, http_connection: http.client.HTTPConnection, path: str, key: str) -> None:
        self._http, self._path = http_connection, path
        self._headers = {"Content-Type": "application/x-ndjson"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"

    def send(self, records: Sequence[Record]) -> Sequence[str | None]:
        body = b"\n".join([r.value for r in records]) + b"\n"
        headers = self._headers
        if len(body) >= _GZIP_FROM:
            body = gzip.compress(body, 1, mtime=0)
            headers = {**headers, "Content-Encoding": "gzip"}
        try:
            self._http.request("POST", self._path, body, headers)
            answer = self._http.getresponse()
            data = answer.read()
        except ConnectionRefusedError as e:
            self._http.close()
            raise Away("connection refused", maybe_taken=False) from e
        except (OSError, http.client.HTTPException) as e:
            self._http.close()
            raise Away(str(e) or type(e).__name__) from e
        return self._verdicts(answer, data, len(records))

    def _verdicts(self, answer: http.client.HTTPResponse, data: bytes, count: int) -> Sequence[str | None]:
        status = answer.status
        if status == 202:
            return [None] * count
        if status == 207:
            return _results(data, count)
        if status in _AWAY_STATUS or status == 503:
            raise Away(f"status {status}", retry_after_s=_seconds(answer.getheader("Retry-After")))
        if status >= 500:
            raise Away(f"status {status}")
        if status in _KEY_STATUS:
            raise TargetError(f"status {status}: the collector wants a write key (TIDE_WRITE_KEY)")
        if status in (404, 405) or not 400 <= status < 500:
            raise TargetError(f"status {status} from {self._path}: that is no collector")
        if count == 1:
            return [_problem_code(data) or f"status_{status}"]
        if status == 400 and (each := _each(data, count)) is not None:
            return each
        raise Refused(f"status_{status}")

    def close(self) -> None:
        self._http.close()


def _each(data: bytes, count: int) -> list[str | None] | None:
    """One verdict a record, where the answer has one for each; None where it has not."""
    try:
        found: Any = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    if isinstance(found, dict):
        found = next((v for v in found.values() if isinstance(v, list)), None)
    if not isinstance(found, list) or len(found) != count:
        return None
    verdicts: list[str | None] = ["unanswered"] * count
    for position, result in enumerate(found):
        index = result.get("index", position)
        verdicts[index] = None if result["status"] == "accepted" else str(result.get("code") or "rejected")
    return verdicts


def _results(data: bytes, count: int) -> list[str | None]:
    verdicts = _each(data, count)
    if verdicts is None:
        raise Away("status 207 without a result for each record")
    return verdicts


def _problem_code(data: bytes) -> str | None:
    verdicts = _each(data, 1)
    if verdicts is not None:
        return verdicts[0]
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    code = found.get("code") if isinstance(found, dict) else None
    return str(code) if code else None


def _seconds(retry_after: str | None) -> float | None:
    try:
        return max(0.0, float(retry_after)) if retry_after else None
    except ValueError:
        return None


class LogTarget:
    """The log's `events` topic, through the port that the pipeline reads."""

    lanes = 2

    def __init__(self, settings: Settings) -> None:
        self._log = open_log(settings)
        self._topic = settings.text("topics.prefix") + topics.EVENTS
        self._producer: LogProducer | None = None
        adapter = settings.text("log.adapter")
        self.name = f"topic {self._topic} ({adapter})"
        # The embedded log takes one transaction at a time. A second lane prepares the next one, which is a tenth faster; at a
        # fixed rate it only halves what each of them holds.
        self.paced_lanes = 1 if adapter == "embedded" else 2

    def probe(self, patience_s: float) -> None:
        until = time.monotonic() + patience_s
        while True:
            try:
                admin = self._log.admin()
                try:
                    if self._topic in admin.topics():
                        return
                finally:
                    admin.close()
                reason = "there is no such topic"
            except LogUnavailable as e:
                reason = str(e)
            if time.monotonic() >= until:
                raise TargetError(f"cannot write to {self.name}: {reason}; is it running?")
            time.sleep(0.2)

    def connect(self) -> Connection:
        if self._producer is None:
            self._producer = self._log.producer()
        return _LogConnection(self._producer, self._topic)

    def close(self) -> None:
        if self._producer is not None:
            self._producer.close()


class _LogConnection:
    def __init__(self, producer: LogProducer, topic: str) -> None:
        self._producer, self._topic = producer, topic

    def send(self, records: Sequence[Record]) -> Sequence[str | None]:
        topic = self._topic
        try:
            self._producer.send([Outgoing(topic, r.user_id.encode(), r.value) for r in records], _TIMEOUT_S)
        except LogUnavailable as e:
            raise Away(str(e)) from e
        except RecordTooLarge as e:
            if len(records) > 1:
                raise Refused(e.code) from e
            return [e.code]
        return [None] * len(records)

    def close(self) -> None: ...
