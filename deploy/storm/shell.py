"""The environment in which `sparse` and `storm` work against this machine's stack.

An official Storm on PATH is left in charge; ours stands in only where there is none.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from deploy.stack.settings import PROJECT, StackSettings
from deploy.storm.home import storm_home

LAUNCHER = Path(__file__).with_name("bin")
# streamparse's own dependencies say these on every call, and nobody here can do anything about it.
QUIET = ("ignore:pkg_resources is deprecated", "ignore:TripleDES has been moved", "ignore:Blowfish has been")


def official_storm(environment: Mapping[str, str]) -> str | None:
    """Path of a `storm` on PATH that is not ours."""
    path = environment.get("PATH", os.defpath)
    others = [item for item in path.split(os.pathsep) if item and Path(item).resolve() != LAUNCHER.resolve()]
    return shutil.which("storm", path=os.pathsep.join(others))


def worker_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without this checkout on PYTHONPATH.

    With it, components would import the working tree instead of the code in their topology's jar.
    """
    entries = [item for item in environment.get("PYTHONPATH", "").split(os.pathsep) if item]
    kept = [item for item in entries if not Path(item).resolve().is_relative_to(PROJECT)]
    rest = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
    return {**rest, "PYTHONPATH": os.pathsep.join(kept)} if kept else rest


def component_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What Storm's processes, and so a topology's components, inherit: no setting of ours.

    Components get theirs with the topology; those of the shell that started Storm would differ by chance.
    """
    return {
        name: value for name, value in worker_environment(environment).items() if not name.startswith("TIDE_")
    }


def shell_variables(environment: Mapping[str, str], settings: StackSettings) -> dict[str, str]:
    """The variables to set, by name, on top of the given environment; applying them twice changes nothing."""
    python = str(Path(sys.executable).parent)
    ours = official_storm(environment) is None
    first = [str(LAUNCHER), python] if ours else [python]
    rest = [
        item for item in environment.get("PATH", os.defpath).split(os.pathsep) if item and item not in first
    ]
    warnings = [
        item for item in environment.get("PYTHONWARNINGS", "").split(",") if item and item not in QUIET
    ]
    variables = {
        "PATH": os.pathsep.join([*first, *rest]),
        "TIDE_ENV": environment.get("TIDE_ENV") or "stack",
        "TIDE_STACK_HOME": str(settings.home),
        "PYTHONWARNINGS": ",".join([*QUIET, *warnings]),
    }
    if os.geteuid() == 0:
        variables["LEIN_ROOT"] = "1"  # else lein stops to ask
    if ours:
        variables["STORM_HOME"] = str(storm_home(settings))
    return variables
