"""Exposure: which keys a service needs before it may listen where others can reach it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path

from clicktide.errors import SettingError
from clicktide.settings import Settings
from services.access.keyfile import Scope
from services.access.keyring import Keyring

_NEEDED: dict[str, Scope] = {"collector": "write", "query": "read", "dashboard": "read"}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address; a name other than localhost never counts."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def keyring_of(
    settings: Settings, now_ms: Callable[[], int], noted: Callable[[bool], None] = lambda _: None
) -> Keyring | None:
    """The keyring that `keys.file` names; None where it is empty. Raises `SettingError`."""
    path = settings.text("keys.file")
    return Keyring(Path(path).expanduser(), now_ms, time.monotonic, noted) if path else None


def check(host: str, roles: Sequence[str], ring: Keyring | None) -> str:
    """`host`, where the roles may listen on it. Raises `SettingError`, one line that says which key is missing."""
    if is_loopback(host):
        return host
    if ring is None:
        raise SettingError(
            f"setting http.host: {host!r} is not this machine's own, so keys are needed: "
            "make some with ./tide keys add and name their file in keys.file (TIDE_KEYS_FILE)"
        )
    for role in roles:
        if not ring.has(_NEEDED[role]):
            raise SettingError(
                f"setting http.host: {host!r} is not this machine's own, and keys.file has no "
                f"{_NEEDED[role]} key that is good now, which the {role} needs: ./tide keys add"
            )
    return host
