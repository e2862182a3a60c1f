"""Edits: new bytes for dead letters, from a file."""

from __future__ import annotations

import json
from pathlib import Path

from clicktide.errors import SettingError
from clicktide.retry.letters import checked_id


def read_edits(path: Path, ids: list[str], prefix: str) -> dict[str, bytes]:
    """New bytes by id. With one id the file is its bytes; with none it holds JSON lines with `id` and `value` (text) or
    `value_hex`. Raises `SettingError` naming the line."""
    try:
        raw = path.read_bytes()
    except OSError as e:
        raise SettingError(f"--edit {path}: {e.strerror}") from e
    if len(ids) > 1:
        raise SettingError("--edit: expected one ID, or none and a file of JSON lines")
    if ids:
        # An editor ends the last line; the record had no such end.
        return {checked_id(ids[0], prefix): raw.removesuffix(b"\n")}
    edits: dict[str, bytes] = {}
    for number, line in enumerate(raw.splitlines(), 1):
        if line.strip():
            try:
                found = json.loads(line)
                value = bytes.fromhex(found["value_hex"]) if "value_hex" in found else found["value"].encode()
                edits[checked_id(found["id"], prefix)] = value
            except (ValueError, KeyError, TypeError, AttributeError):
                raise SettingError(
                    f"--edit {path} line {number}: expected a JSON object with `id` and `value` (text) or `value_hex`"
                ) from None
    if not edits:
        raise SettingError(f"--edit {path}: it holds no edits")
    return edits
