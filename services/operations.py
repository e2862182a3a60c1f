"""Operations: the one registry of HTTP routes, from which come both the router and the OpenAPI document.

An operation says its query parameters as a msgspec type; `parameters` reads them and refuses what is unknown or bad
with the parameter's name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

import msgspec
import orjson
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response

from services.problems import ProblemError

P = TypeVar("P", bound=msgspec.Struct)
Handler = Callable[[Request], Awaitable[Response]]
Then = Callable[[Response | None], None]
# The short way: hands `Then` the answer as soon as it is there, or None where the handler has to give it. False where `Then` will
# not be called: likewise. Raises what the handler would, before it returns.
Soon = Callable[[Request, Then], bool]


class _IdConvertor(StringConvertor):
    """Any text, with slashes and line feeds: Starlette's `path` drops a last line feed and takes no other."""

    regex = "(?s:.*)"


register_url_convertor("id", _IdConvertor())


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. `path` is the document's form (`{id}`); `problems` are codes of `problems.CODES`."""

    method: str
    path: str
    summary: str
    tag: str
    handler: Handler
    query: type[msgspec.Struct] | None = None
    path_parameters: Mapping[str, str] = field(default_factory=dict)
    answers: Mapping[int, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    body: Any = None
    media_type: str = "application/json"
    takes: tuple[str, ...] = ("application/json",)
    # The right that its caller needs where keys are set: write, read, admin; "" for none.
    scope: str = ""
    soon: Soon | None = None

    @property
    def route(self) -> str:
        """The router's form: identifiers may hold what they like, slashes as `%2F`."""
        out = self.path
        for name in self.path_parameters:
            out = out.replace("{" + name + "}", "{" + name + ":id}")
        return out


def parameters(request: Request, kind: type[P]) -> P:
    """The query parameters as `kind`; a comma-separated or repeated parameter is a list. Raises a `bad_parameter` problem."""
    usual: P | None = None if request.scope["query_string"] else _none_given(kind)
    if usual is not None:
        return usual
    lists = _lists(kind)
    given: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        if name in lists:
            given.setdefault(name, []).extend(v for v in value.split(",") if v)
        elif name in given:
            raise ProblemError("bad_parameter", f"{name}: expected once", parameter=name)
        elif value != "":
            given[name] = value
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as e:
        raise ProblemError("bad_parameter", message(str(e))) from e


@cache
def _none_given(kind: type[P]) -> P | None:
    """The parameters where the address has none; None where one is needed."""
    try:
        return msgspec.convert({}, kind, strict=False)
    except msgspec.ValidationError:
        return None


@cache
def _lists(kind: type[msgspec.Struct]) -> frozenset[str]:
    return frozenset(f.encode_name for f in msgspec.structs.fields(kind) if "list" in str(f.type))


def identifier(request: Request, name: str) -> str:
    """A path parameter of 1 to 64 characters, any that an event's ids may have (`event.Id`). Raises a `bad_parameter` problem.

    Control characters are among them: it is for look-ups and JSON answers, never for a header or a line of a log.
    """
    value = str(request.path_params[name])
    if not 1 <= len(value) <= 64 or not _is_unicode(value):
        raise ProblemError("bad_parameter", f"{name}: expected 1 to 64 characters of UTF-8", parameter=name)
    return value


def _is_unicode(value: str) -> bool:
    """Whether there are no halves of surrogate pairs in it, which a path that is not UTF-8 may become."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def answer(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer that no cache keeps; `body` is its value, or bytes that are its text already."""
    text = body if isinstance(body, bytes) else orjson.dumps(body)
    if headers is None:
        return _Json(text, status)
    return Response(
        text, status, headers={"Cache-Control": "no-store", **headers}, media_type="application/json"
    )


class _Json(Response):
    """As Starlette's with these headers, at a fifth of the cost."""

    def __init__(self, text: bytes, status: int) -> None:
        self.body, self.status_code, self.background = text, status, None
        self.raw_headers = [
            (b"cache-control", b"no-store"),
            (b"content-length", b"%d" % len(text)),
            (b"content-type", b"application/json"),
        ]


def message(text: str) -> str:
    """What msgspec says of a bad value, with the parameter's name in front."""
    what, _, path = text.partition(" - at `$")
    name = path.strip("`.").split("[")[0]
    if "unknown field" in what:
        return what.replace("Object contains unknown field", "unknown parameter")
    return f"{name}: {what[0].lower()}{what[1:]}" if name else what
