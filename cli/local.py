"""`./tide local`: localstorm's own command line, at home in this project.

Promises that `python -m localstorm` sees every argument as it was given; only what is not said is filled in: the
project, and for this project the environment and the addresses of its stores.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(args: list[str]) -> int:
    from cli import given
    from clicktide.errors import SettingError
    from localstorm.cli import main as localstorm

    try:
        project = Path(_value(args, "--project") or ROOT)
        env = _value(args, "-e", "--environment") or os.environ.get("TIDE_ENV") or "embedded"
        given.check(args, project, env)
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return localstorm(completed(args), prog="./tide local")


def completed(args: list[str]) -> list[str]:
    """The arguments with what was left out; a foreign project's are left alone."""
    if any(word in ("-h", "--help") for word in args):
        return args
    project = _value(args, "--project")
    if project is not None and Path(project).resolve() != ROOT:
        return args
    env = _value(args, "-e", "--environment") or os.environ.get("TIDE_ENV") or "embedded"
    filled = [] if project else ["--project", str(ROOT)]
    if _value(args, "-e", "--environment") is None:
        filled += ["-e", env]
    # First, so that an -o of the caller's wins.
    return [*filled, *_store_options(env), *args]


def _store_options(env: str) -> list[str]:
    from cli.context import settings_for
    from deploy.embedded.plan import storm_options

    return storm_options(settings_for(env))


def _value(args: list[str], *names: str) -> str | None:
    """The value of an option given as `-e X`, `--environment X` or `--environment=X`."""
    for i, word in enumerate(args):
        if word in names:
            return args[i + 1] if i + 1 < len(args) else None
        name, equals, value = word.partition("=")
        if equals and name in names:
            return value
        if any(len(n) == 2 and word.startswith(n) and not word.startswith("--") for n in names):
            return word[2:]
    return None
