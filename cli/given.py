"""What `-o tide.…=…` says on the command line of `sparse` and `local`, held against the settings before anything starts.

Promises: an unknown setting, a bad value, and values that contradict each other or the policy file are refused with one line.
"""

from __future__ import annotations

import sys
from pathlib import Path

# `python -m cli.sparse` may have the project alone on its path.
sys.path.append(str(Path(__file__).resolve().parent.parent / "src"))

from clicktide.errors import SettingError
from clicktide.retry import policy, policy_file
from clicktide.settings import PREFIX, Settings, options_of

__all__ = ["SettingError", "check"]


def check(args: list[str], project: Path, env: str) -> None:
    """Check our own options among streamparse's arguments, over the project's policy file and config.json. Raises
    `SettingError`; a project without our policy file, or an environment that is not in config.json, is not ours to judge."""
    said = {k.removeprefix(PREFIX): v for k, v in _options(args).items() if k.startswith(PREFIX)}
    file = project / "retry" / "policy.toml"
    if not said or not file.is_file():
        return
    config = options_of(project / "config.json", env)
    ours = {k.removeprefix(PREFIX): v for k, v in config.items() if k.startswith(PREFIX)}
    policy.from_settings(Settings({**ours, **policy_file.read(file), **said}))


def _options(args: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for i, word in enumerate(args):
        if word in ("-o", "--option") and i + 1 < len(args):
            pair = args[i + 1]
        elif word.startswith("--option="):
            pair = word.partition("=")[2]
        elif word.startswith("-o") and "=" in word:
            pair = word[2:]
        else:
            continue
        key, equals, value = pair.partition("=")
        if equals:
            found[key] = value.strip("'\"")
    return found
