"""The truth file: one JSON line for every record that the system has accepted, and nothing else.

A line is written after the acceptance, in one write a batch, so a killed sender leaves no line for a record
that was not accepted, and at most one torn line at the end, which readers ignore.
The format is documented in docs/traffic.md.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from clicktide.errors import ClicktideError

GOOD, DUPLICATE, MALFORMED, LATE = "good", "duplicate", "malformed", "late"
KINDS = (GOOD, DUPLICATE, MALFORMED, LATE)


class TruthError(ClicktideError):
    """A truth file cannot be read or written."""

    code = "truth"


class Record(NamedTuple):
    """One record to send. `value` is what goes over the wire, `at` the intended time of sending in ms."""

    kind: str
    user_id: str
    value: bytes
    at: int


class TruthLine(NamedTuple):
    """One line read back: `event` of the kinds that have one, else `raw`; `unknown`: acceptance unresolved."""

    kind: str
    event: dict[str, Any] | None
    raw: bytes | None
    at: int
    unknown: bool


def encode_line(record: Record, *, unknown: bool = False) -> bytes:
    """The record as a line of the truth file, newline included. The event's bytes are copied, not decoded."""
    tail = b',"unknown":true}\n' if unknown else b"}\n"
    if record.kind != MALFORMED:
        return b'{"kind":"%b","event":%b,"raw":null,"at":%d%b' % (
            record.kind.encode(),
            record.value,
            record.at,
            tail,
        )
    try:
        raw, encoding = record.value.decode(), b""
    except UnicodeDecodeError:
        raw, encoding = base64.b64encode(record.value).decode(), b',"encoding":"base64"'
    return b'{"kind":"malformed","event":null,"raw":%b,"at":%d%b%b' % (
        orjson.dumps(raw),
        record.at,
        encoding,
        tail,
    )


def decode_line(line: bytes) -> TruthLine:
    """Raises `ValueError` where the line is not of the format."""
    fields = orjson.loads(line)
    if not isinstance(fields, dict) or fields.get("kind") not in KINDS:
        raise ValueError("expected an object with a kind of " + ", ".join(KINDS))
    kind, event, raw, at = fields["kind"], fields.get("event"), fields.get("raw"), fields.get("at")
    if kind == MALFORMED:
        if not isinstance(raw, str):
            raise ValueError("expected raw text in a malformed record")
        raw = base64.b64decode(raw) if fields.get("encoding") == "base64" else raw.encode()
    elif not isinstance(event, dict) or "event_id" not in event:
        raise ValueError(f"expected an event with an event_id in a {kind} record")
    return TruthLine(kind, event, raw, int(at or 0), bool(fields.get("unknown")))


def read(path: Path) -> Iterator[TruthLine]:
    """All lines of a truth file; raises `TruthError` naming the line that is not of the format."""
    try:
        with path.open("rb") as f:
            for number, line in enumerate(f, 1):
                if not line.endswith(b"\n"):
                    return  # torn by a kill in the middle of a write; its record was not counted
                try:
                    yield decode_line(line)
                except ValueError as e:
                    raise TruthError(f"{path.name} line {number}: not a truth record ({e})") from e
    except OSError as e:
        raise TruthError(f"cannot read the truth file {path}: {e.strerror or e}") from e


class TruthWriter:
    """Appends records; safe for several threads; what `write` has returned from survives a kill -9."""

    def __init__(self, path: Path, *, append: bool = False) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab" if append else "wb", buffering=0)
        except OSError as e:
            raise TruthError(f"cannot write the truth file {path}: {e.strerror or e}") from e

    def write(self, records: Iterable[Record], *, unknown: bool = False) -> None:
        data = b"".join([encode_line(r, unknown=unknown) for r in records])
        with self._lock:
            try:
                view = memoryview(data)
                while view:
                    view = view[self._file.write(view) or 0 :]
            except OSError as e:
                raise TruthError(f"cannot write the truth file {self.path}: {e.strerror or e}") from e

    def close(self) -> None:
        self._file.close()
