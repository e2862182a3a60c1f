"""Pseudonyms: ids of persons replaced by a keyed hash on their way into the stores, where `ids.pseudonym_key` is set.

Promises: the same id and key give the same 64 characters; without the key nobody can tell whose they are. The log keeps the
ids as they came, until its retention. Who asks for a person, or erases one, by the id itself has to hash it first.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable

from clicktide.settings import Settings


def pseudonym_of(settings: Settings) -> Callable[[str], str] | None:
    """A function from an id to what the stores call it; None where they call it by its name."""
    key = settings.text("ids.pseudonym_key").encode()
    if not key:
        return None
    return lambda name: hmac.digest(key, name.encode(), "sha256").hex()


def stored_id(settings: Settings, name: str) -> str:
    """What the stores call the person."""
    hashed = pseudonym_of(settings)
    return name if hashed is None else hashed(name)
