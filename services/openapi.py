"""The OpenAPI 3.1 document, built from the registry of operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

import clicktide
from services.operations import Operation
from services.problems import CODES, MEDIA_TYPE

_REF = "#/components/schemas/{name}"


# Bodies that are text in the document, whatever they hold.
_TEXTS = {
    "application/x-ndjson": {"type": "string", "description": "One event a line."},
    "text/plain": {"type": "string", "description": "Any of these, as sendBeacon sends it."},
}


class Problem(msgspec.Struct):
    """An RFC 9457 problem document. Problems about one parameter name it; `all_rejected` has one result an event."""

    type: str
    title: str
    status: int
    detail: str
    code: str


_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key made by `./tide keys add`."},
    "header": {"type": "apiKey", "in": "header", "name": "X-Tide-Key", "description": "The same key."},
    "address": {
        "type": "apiKey",
        "in": "query",
        "name": "key",
        "description": "Write keys only, for `navigator.sendBeacon`, which can send no header.",
    },
}
_TEXT = {"schema": {"type": "string"}}
# What an answer may carry beside its body.
_ALWAYS = {"X-Request-Id": {"description": "The request's id: its own, or one that was made.", **_TEXT}}
_LIMITS = {
    "RateLimit-Policy": {"description": "The limits that apply to this caller.", **_TEXT},
    "RateLimit": {"description": "What is left of them.", **_TEXT},
}
_REFUSED = {"WWW-Authenticate": {"description": "RFC 6750.", **_TEXT}}
_RETRY = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}
_REQUEST_ID = {
    "name": "X-Request-Id",
    "in": "header",
    "required": False,
    "description": "1 to 64 of A-Z a-z 0-9 . _ -; answered, logged, and kept with the events; another text is replaced.",
    "schema": {"type": "string"},
}


def document(operations: Sequence[Operation], *, keys: bool = False) -> dict[str, Any]:
    """The document of these operations. `keys`: whether operations with a scope need one."""
    kinds = _kinds(operations)
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    by_kind = dict(zip(map(id, kinds), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for o in operations:
        paths.setdefault(o.path, {})[o.method.lower()] = _operation(o, by_kind, components, keys=keys)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Clicktide",
            "version": clicktide.__version__,
            "description": "Shopper behaviour and orders: the collector takes events, the query service shows them.",
        },
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": _SECURITY},
    }


def _kinds(operations: Sequence[Operation]) -> list[Any]:
    found: dict[int, Any] = {id(Problem): Problem}
    for o in operations:
        for kind in (o.query, o.body, *o.answers.values()):
            if kind is not None and kind is not str:
                found[id(kind)] = kind
    return list(found.values())


def _operation(
    o: Operation, by_kind: dict[int, Any], components: dict[str, Any], *, keys: bool
) -> dict[str, Any]:
    out: dict[str, Any] = {
        "summary": o.summary,
        "operationId": f"{o.method.lower()}_{o.path.strip('/').replace('/', '_').replace('{', '').replace('}', '')}",
        "tags": [o.tag],
        "parameters": [*_path_parameters(o), *_query_parameters(o, by_kind, components), _REQUEST_ID],
        "responses": _responses(o, by_kind),
    }
    if o.scope:
        ways = ["bearer", "header", *(["address"] if o.scope == "write" else [])]
        out["security"] = [*([] if keys else [{}]), *({way: []} for way in ways)]
        out["description"] = f"Where keys are set it needs a key of scope {o.scope}, or an admin key."
    if o.body is not None:
        schema = by_kind[id(o.body)]
        out["requestBody"] = {
            "required": True,
            "content": {t: {"schema": _TEXTS.get(t, schema)} for t in o.takes},
        }
    return out


def _path_parameters(o: Operation) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": text,
            "schema": {"type": "string", "minLength": 1, "maxLength": 64},
        }
        for name, text in o.path_parameters.items()
    ]


def _query_parameters(
    o: Operation, by_kind: dict[int, Any], components: dict[str, Any]
) -> list[dict[str, Any]]:
    if o.query is None:
        return []
    schema = components[by_kind[id(o.query)]["$ref"].rsplit("/", 1)[-1]]
    out = []
    for name, given in schema["properties"].items():
        # Absent is how a query says null.
        choices = [c for c in given.get("anyOf", []) if c != {"type": "null"}]
        kind = choices[0] if len(choices) == 1 else {k: v for k, v in given.items() if k != "default"}
        if given.get("default") is not None:
            kind = {**kind, "default": given["default"]}
        parameter: dict[str, Any] = {"name": name, "in": "query", "required": False, "schema": kind}
        if description := kind.get("description"):
            parameter["description"] = description
        if kind.get("type") == "array":
            parameter["explode"] = False
        out.append(parameter)
    return out


def _responses(o: Operation, by_kind: dict[int, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for status, kind in o.answers.items():
        described: dict[str, Any] = {
            "description": {202: "Accepted", 207: "Some are rejected", 304: "As the client has it"}.get(
                status, "OK"
            ),
            "headers": {**_ALWAYS, **(_LIMITS if o.scope else {}), **(_RETRY if status == 207 else {})},
        }
        if kind is str:
            described["content"] = {o.media_type: {"schema": {"type": "string"}}}
        elif kind is not None:
            described["content"] = {"application/json": {"schema": by_kind[id(kind)]}}
        out[str(status)] = described
    by_status: dict[int, list[str]] = {}
    for code in (*o.problems, *_access(o)):
        by_status.setdefault(CODES[code][0], []).append(code)
    for status, codes in sorted(by_status.items()):
        out[str(status)] = {
            "description": " ".join(f"`{c}`: {CODES[c][1]}." for c in codes),
            "headers": {
                **_ALWAYS,
                **(_REFUSED if status == 401 else {}),
                **(_RETRY if status in {429, 503} else {}),
                **(_LIMITS if status == 429 else {}),
            },
            "content": {MEDIA_TYPE: {"schema": by_kind[id(Problem)]}},
        }
    return out


def _access(o: Operation) -> tuple[str, ...]:
    """The codes with which the guard refuses."""
    if not o.scope:
        return ()
    own = (
        ("key_in_address",)
        if o.scope == "write"
        else ()
        if "rate_limited" in o.problems
        else ("rate_limited",)
    )
    return ("key_missing", "key_unknown", "key_scope", "key_origin", *own)
