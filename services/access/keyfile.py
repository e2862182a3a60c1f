"""The keys file: who may use the services, with which right, and within which limits.

Promises: no token is in it, only the SHA-256 of each; it is written whole or not at all, readable by its owner alone; two
commands that write it at once do so one after the other. docs/decisions/0007-keys-and-limits.md has the reasons.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from clicktide.errors import SettingError

Scope = Literal["write", "read", "admin"]
SCOPES: tuple[Scope, ...] = ("write", "read", "admin")
_ID_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
_TOKEN = re.compile(r"tide_(?:write|read|admin)_([a-z0-9]{8})_[A-Za-z0-9_-]{43}\Z")
# More is no list of keys, and would be read once a second.
_MOST_BYTES = 4 * 1024 * 1024
_Rate = Annotated[float, Meta(gt=0, le=1e9)]


class Secret(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One token of a key, by its hash (64 hex digits); `expires` ms since the epoch, None for never."""

    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
    created: int
    expires: int | None = None


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One key. It has two secrets while it is rotated, none once it is revoked. `rate` and `burst` count events for
    writing and requests for reading; `origins` are the pages that may use it, () for no such limit."""

    id: Annotated[str, Meta(pattern=r"^[a-z0-9]{8}$")]
    name: Annotated[str, Meta(min_length=1, max_length=64)]
    scope: Scope
    created: int
    secrets: tuple[Secret, ...] = ()
    rate: _Rate | None = None
    burst: _Rate | None = None
    origins: tuple[str, ...] = ()
    revoked: int | None = None

    def usable(self, now_ms: int) -> bool:
        """Whether any of its tokens is good now."""
        return self.revoked is None and any(s.expires is None or s.expires > now_ms for s in self.secrets)

    def may(self, scope: str) -> bool:
        """An admin key may all; the others just their own."""
        return self.scope in (scope, "admin")


class Keys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the file holds."""

    v: Literal[1] = 1
    keys: tuple[Key, ...] = ()


def id_of(token: str) -> str | None:
    """The key's id that a token names; None where it is not shaped like one."""
    found = _TOKEN.match(token)
    return found[1] if found else None


def digest(token: str) -> str:
    """What is kept of a token. Its 256 random bits cannot be guessed, so a slow hash would protect nothing more."""
    return hashlib.sha256(token.encode()).hexdigest()


def new_token(scope: Scope, id_: str) -> str:
    return f"tide_{scope}_{id_}_{secrets.token_urlsafe(32)}"


def new_id(taken: set[str]) -> str:
    while True:
        made = "".join(secrets.choice(_ID_LETTERS) for _ in range(8))
        if made not in taken:
            return made


def checked_origin(text: str) -> str:
    """An origin as browsers send it: scheme, host, port where it is not the scheme's own. Raises `SettingError`."""
    parts = urlsplit(text)
    origin = f"{parts.scheme}://{parts.netloc}".lower()
    if parts.scheme not in {"http", "https"} or not parts.hostname or text.rstrip("/").lower() != origin:
        raise SettingError(f"an origin: expected https://host or https://host:port, got {text!r}")
    return origin


def read(path: Path) -> Keys:
    """The file's keys. Raises `SettingError` naming the file and what is wrong with it."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            raw = file.read(_MOST_BYTES + 1)
    except OSError as e:
        raise SettingError(f"keys file {path}: {e.strerror}") from e
    # Who may write it makes keys of their own; reading it gives hashes only (and mounted secrets are often readable).
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise SettingError(f"keys file {path}: others may write it; chmod 600 it")
    if len(raw) > _MOST_BYTES:
        raise SettingError(f"keys file {path}: more than {_MOST_BYTES} bytes")
    try:
        found = msgspec.json.decode(raw, type=Keys)
    except (msgspec.MsgspecError, UnicodeError) as e:
        raise SettingError(f"keys file {path}: {e}") from None
    ids = [k.id for k in found.keys]
    if len(set(ids)) != len(ids):
        raise SettingError(f"keys file {path}: two keys have the same id")
    return found


def write(path: Path, keys: Keys) -> None:
    """Replaces the file; it is the old one or the new one whatever happens. Raises `SettingError`."""
    content = msgspec.json.format(msgspec.json.encode(keys), indent=1) + b"\n"
    try:
        handle, name = tempfile.mkstemp(prefix=path.name, dir=path.parent)  # mode 0600 from its first moment
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise
        _sync(path.parent)
    except OSError as e:
        raise SettingError(f"keys file {path}: {e.strerror}") from e


@contextmanager
def alone(path: Path) -> Iterator[Callable[[Keys], None]]:
    """Gives a function that writes the file; nobody else does before the block ends. Raises `SettingError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(f"{path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as e:
        raise SettingError(f"keys file {path}: {e.strerror}") from e
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lambda keys: write(path, keys)
    finally:
        os.close(lock)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
