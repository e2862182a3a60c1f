"""The keyring: the keys file as a service sees it, as it is now.

Promises: a change of the file holds for requests that come a second later, without a restart; a file that cannot be read or
understood changes nothing: the last good one stays in force, and the log says so once; comparing a token takes the same
time wherever it is wrong.
"""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Callable
from pathlib import Path

from clicktide.errors import SettingError
from services.access import keyfile
from services.access.keyfile import Key, Scope

_LOG = logging.getLogger("clicktide.keys")
LOOK_S = 1.0
_NO_SECRET = "0" * 64


class Keyring:
    """Reads `path` at once (raises `SettingError`). `now_ms` is the wall clock, `clock` monotonic seconds;
    `noted(good)` hears after each reading whether the file was good."""

    def __init__(
        self,
        path: Path,
        now_ms: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
        noted: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._path, self._now_ms, self._clock, self._noted = path, now_ms, clock, noted
        self._seen = self._signature()
        self._keys = {k.id: k for k in keyfile.read(path).keys}
        self._looked = clock()
        self._complaint = ""
        noted(True)

    def find(self, token: str) -> Key | None:
        """The key that the token is good for now; None for an unknown, expired or revoked one."""
        self._look()
        key = self._keys.get(keyfile.id_of(token) or "")
        found = keyfile.digest(token)
        now, good = self._now_ms(), False
        for secret in key.secrets if key else ():
            same = hmac.compare_digest(secret.sha256, found)
            good |= same and (secret.expires is None or secret.expires > now)
        if key is None:
            # An id that exists must not take longer than one that does not.
            hmac.compare_digest(_NO_SECRET, found)
        return key if key is not None and good and key.revoked is None else None

    def has(self, scope: Scope) -> bool:
        """Whether any key may do that now."""
        self._look()
        now = self._now_ms()
        return any(k.may(scope) and k.usable(now) for k in self._keys.values())

    def _look(self) -> None:
        # By the way of a request: one stat a second costs less than a thread, and nothing while nobody asks.
        now = self._clock()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        signature = self._signature()
        if signature == self._seen and not self._complaint:
            return
        try:
            found = {k.id: k for k in keyfile.read(self._path).keys}
        except SettingError as e:
            self._noted(False)
            if str(e) != self._complaint:
                self._complaint = str(e)
                _LOG.warning("%s; the keys read before stay in force", e)
            return
        self._keys, self._seen, self._complaint = found, signature, ""
        self._noted(True)
        _LOG.info("keys file read again: %d keys", len(found))

    def _signature(self) -> tuple[int, ...] | None:
        try:
            s = self._path.stat()
        except OSError:
            return None
        return (s.st_ino, s.st_mtime_ns, s.st_size, s.st_mode)
