"""Keeps Storm's ports on the loopback address: builds and preloads loopback.c.

Storm offers no setting for the address that its Thrift and worker ports listen on.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from deploy.stack.errors import StackError
from deploy.stack.settings import StackSettings

SOURCE = Path(__file__).with_name("loopback.c")
COMPILERS = ("cc", "gcc", "clang", "tcc")
PRELOAD = "LD_PRELOAD"


def library(settings: StackSettings) -> Path:
    """Where the built library lies; its name changes with the source."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    return settings.folder("storm", "native", f"loopback-{digest}.so")


def ensure_loopback(settings: StackSettings) -> Path:
    """Build the library once. Raises StackError when no compiler is there or its path cannot be preloaded."""
    path = library(settings)
    if " " in str(path) or ":" in str(path):
        raise StackError(
            f"{settings.home}: Storm needs a folder without blanks and colons; set TIDE_STACK_HOME"
        )
    if path.exists():
        return path
    compiler = next((found for name in COMPILERS if (found := shutil.which(name))), None)
    if compiler is None:
        raise StackError(
            "a C compiler is missing; as root on Debian: apt-get install --no-install-recommends tcc"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    done = subprocess.run(
        [compiler, "-shared", "-fPIC", "-nostdlib", "-o", str(fresh), str(SOURCE)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise StackError(f"{compiler} could not build {SOURCE.name}: {done.stderr.strip().splitlines()[-1:]}")
    fresh.replace(path)
    return path


def loopback_environment(environment: Mapping[str, str], settings: StackSettings) -> dict[str, str]:
    """The environment with the library preloaded, before whatever was."""
    ours = str(library(settings))
    before = [item for item in environment.get(PRELOAD, "").split(":") if item and item != ours]
    return {**environment, PRELOAD: ":".join([ours, *before])}
