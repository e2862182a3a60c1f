"""The guard: whether the caller of an operation may do what it asks.

Without a keys file everything is open, which `services.main` allows on this machine's own addresses only. With one, every
operation that has a scope needs a key of that scope, or an admin key: `Authorization: Bearer …`, `X-Tide-Key: …`, and for
write keys `?key=…`, because `navigator.sendBeacon` can send no header and a write key stands in the page's source anyway. No other
key is taken there: addresses are kept in histories, logs and `Referer`. Browsers cannot send headers with a WebSocket either; it
takes the key as a subprotocol, which is a header. Promises: tokens go nowhere from here, only ids of keys do.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket

from services.access.keyfile import Key
from services.access.keyring import Keyring
from services.access.limits import Quota
from services.problems import ProblemError

REALM = 'Bearer realm="clicktide"'
FEED = "tide.live"
_AS_PROTOCOL = "tide.key."


class Guard:
    """`ring` is None where no keys are needed; `reads` limits everything but uploads, which count events themselves."""

    def __init__(self, ring: Keyring | None, reads: Quota) -> None:
        self._ring, self._reads = ring, reads

    @property
    def on(self) -> bool:
        """Whether keys are needed."""
        return self._ring is not None

    def admit(self, connection: HTTPConnection, scope: str) -> dict[str, str]:
        """Answers with headers for the caller, and leaves the key in `connection.state.key`. Raises a problem: 401, 403, 429."""
        connection.state.key = None
        if not scope:
            return {}
        if self._ring is None:
            if scope == "admin":
                _from_here(connection.headers)
            key = None
        else:
            key = self._known(self._ring, connection, scope)
            connection.state.key = key
            _right(key, scope, connection.headers.get("origin"))
        return {} if scope == "write" else self._reads.take(key, 1)

    def admit_feed(self, ws: WebSocket) -> Callable[[], bool]:
        """As `admit` for reading; answers with whether the caller still may, to be asked again."""
        self.admit(ws, "read")
        token, _ = _token_of(ws, "read")
        return lambda: self._ring is None or self._ring.find(token) is not None

    @staticmethod
    def _known(ring: Keyring, connection: HTTPConnection, scope: str) -> Key:
        token, in_address = _token_of(connection, scope)
        if not token:
            raise ProblemError("key_missing", f"a {scope} key is needed", headers={"WWW-Authenticate": REALM})
        key = ring.find(token)
        if key is None:
            challenge = f'{REALM}, error="invalid_token"'
            raise ProblemError(
                "key_unknown", "it is unknown, expired or revoked", headers={"WWW-Authenticate": challenge}
            )
        if in_address and key.scope != "write":
            connection.state.key = key
            raise ProblemError(
                "key_in_address",
                f"key {key.id} is a {key.scope} key: send it as a header, and rotate it, for addresses are kept in logs",
                headers={"WWW-Authenticate": f'{REALM}, error="invalid_request"'},
            )
        return key


def _token_of(connection: HTTPConnection, scope: str) -> tuple[str, bool]:
    """The token, and whether it stood in the address; ("", False) for none."""
    kind, _, token = connection.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and token.strip():
        return token.strip(), False
    if token := connection.headers.get("x-tide-key", "").strip():
        return token, False
    if connection.scope["type"] == "websocket":
        for name in connection.scope.get("subprotocols") or ():
            if name.startswith(_AS_PROTOCOL):
                return name.removeprefix(_AS_PROTOCOL), False
    if scope == "write" and (token := connection.query_params.get("key", "")):
        return token, True
    return "", False


def _right(key: Key, scope: str, origin: str | None) -> None:
    if not key.may(scope):
        raise ProblemError(
            "key_scope",
            f"key {key.id} is a {key.scope} key, this needs a {scope} key",
            headers={"WWW-Authenticate": f'{REALM}, error="insufficient_scope", scope="{scope}"'},
        )
    if key.origins and (origin or "").lower() not in key.origins:
        raise ProblemError(
            "key_origin", f"key {key.id} is for pages of other origins than {(origin or 'none')[:100]}"
        )


def _from_here(headers: Headers) -> None:
    # Without keys a page of another site could reach what erases and replays under a name of its own that it
    # has pointed at this machine; such a request names that host.
    host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
    try:
        local = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local:
        raise ProblemError(
            "key_missing",
            "without keys this is for this machine only: ask 127.0.0.1 or localhost",
            headers={"WWW-Authenticate": REALM},
        )
