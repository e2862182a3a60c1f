"""The policy file: `retry/policy.toml` as settings, for the topologies that are loaded beside it.

Promises: a file that cannot be read, says something unknown, or contradicts itself is refused with its name.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clicktide.errors import SettingError
from clicktide.retry import policy
from clicktide.settings import PREFIX, Settings, Value

_GROUP = "retry."
_TABLE = "dead"
_CLASSES = "classes"


def options(path: Path) -> dict[str, Value]:
    """The file's values as Storm options (`tide.retry.<name>`). Raises `SettingError`."""
    return {PREFIX + name: value for name, value in read(path).items()}


def read(path: Path) -> dict[str, Value]:
    """The file's values by the names of their settings (`retry.attempts`, ...). Raises `SettingError`."""
    where = f"{path.parent.name}/{path.name}"
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except OSError as e:
        raise SettingError(f"{where}: {e.strerror or e}") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise SettingError(f"{where}: expected TOML: {e}") from e
    try:
        named = _named(found)
        settings = Settings(named)
        policy.from_settings(settings)
    except SettingError as e:
        raise SettingError(f"{where}: {e}") from e
    return {name: settings[name] for name in named}


def _named(found: Mapping[str, Any]) -> dict[str, object]:
    named: dict[str, object] = {}
    for key, value in found.items():
        if key == _TABLE and isinstance(value, dict):
            named.update({f"{_GROUP}{_TABLE}_{k}": v for k, v in value.items()})
        elif key == _CLASSES and isinstance(value, dict):
            named[_GROUP + key] = " ".join(f"{code}={kind}" for code, kind in value.items())
        elif isinstance(value, list):
            named[_GROUP + key] = " ".join(map(str, value))
        else:
            named[_GROUP + key] = value
    return named
