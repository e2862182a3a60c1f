"""What a command works with: the environment, the data directory and the settings.

Promises one order of precedence: `TIDE_*` variables, then what a running demo says of itself, then
`envs.<env>.options` of config.json, then the registry's defaults.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from clicktide.errors import SettingError
from clicktide.settings import ENV_PREFIX, Settings, from_environment, options_of
from deploy.embedded.layout import laid_out
from deploy.embedded.places import Places

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ("embedded", "stack", "cluster")
# Variables of the command line itself: where to look and how to speak, not settings.
OWN_VARIABLES = frozenset(
    {
        "TIDE_DEBUG",
        "TIDE_ENV",
        "TIDE_DATA_DIR",
        "TIDE_CONFIG",
        "TIDE_CACHE",
        "TIDE_HOME",
        "TIDE_WRITE_KEY",
    }
)
STACK_VARIABLES = "TIDE_STACK_"

EnvOption = Annotated[
    str,
    typer.Option("-e", "--environment", envvar="TIDE_ENV", help="Where to work: embedded, stack or cluster."),
]
DataDirOption = Annotated[
    Path | None,
    typer.Option("--data-dir", envvar="TIDE_DATA_DIR", help="The demo's data directory.  [default: .tide]"),
]


def data_dir(given: Path | None = None) -> Path:
    """The embedded services' data directory, absolute: as given, else TIDE_DATA_DIR, else `.tide` of the project."""
    chosen = given or Path(os.environ.get("TIDE_DATA_DIR") or ROOT / ".tide")
    return chosen.expanduser().absolute()


def config_file(environ: Mapping[str, str] = os.environ) -> Path:
    """streamparse's config.json: TIDE_CONFIG, else the project's."""
    return Path(environ.get("TIDE_CONFIG") or ROOT / "config.json")


def running(given: Path | None = None) -> dict[str, Any] | None:
    """What the demo that runs on the data directory says of itself (pid, urls, options); None when none runs."""
    from deploy.embedded.record import read_live

    return read_live(Places(data_dir(given)).run_file)


def settings_for(
    env: str | None = None, data_dir_given: Path | None = None, environ: Mapping[str, str] = os.environ
) -> Settings:
    """The checked settings of an environment; raises `SettingError` naming what is unknown, missing or bad."""
    env = env or environ.get("TIDE_ENV") or "embedded"
    options = options_of(config_file(environ), env)
    if env == "embedded":
        places = Places(data_dir(data_dir_given))
        options.update({**places.options(), **laid_out(places)})
        options.update((running(data_dir_given) or {}).get("options") or {})
    given = {k: v for k, v in environ.items() if k.startswith(ENV_PREFIX) and not _own(k)}
    return from_environment(given, options)


def _own(variable: str) -> bool:
    """Whether a TIDE_* variable belongs to the command line or to the real stack, and is no setting."""
    return variable in OWN_VARIABLES or variable.startswith(STACK_VARIABLES)


def collector_url(env: str, data_dir_given: Path | None = None) -> str:
    """Where events go by HTTP: the running demo's collector, else the port that the settings say.

    Raises `SettingError` when the embedded environment is meant and no demo runs on the data directory.
    """
    if env != "embedded":
        return "http://127.0.0.1:8080"
    found = running(data_dir_given)
    if found is None:
        raise SettingError(
            f"no demo runs on {data_dir(data_dir_given)}; start one with ./tide demo --no-traffic"
        )
    return str(found["urls"]["collector"])
