"""Debian packages that the servers need: what is missing, and its installation when we may.

Debian's own services are never started: they would take ports, memory and data of their own.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.stack.errors import StackError
from deploy.stack.jars import SETS, jar_folder, listed_sums, missing_names
from deploy.stack.servers.base import Say
from deploy.stack.settings import StackSettings
from deploy.storm.loopback import COMPILERS

# Program that has to be found -> package that brings it. Debian 12's Java is 17; later ones name it otherwise.
PACKAGES = {
    "java": "default-jre-headless",
    "mvn": "maven",
    "lein": "leiningen",
    "redis-server": "redis-server",
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
    "cc": "tcc",
}
NEEDS = {
    "kafka": ("java",),
    "storm": ("java", "lein", "cc"),
    "redis": ("redis-server",),
    "mariadb": ("mariadbd", "mariadb-install-db"),
}
ALTERNATIVES = {"cc": COMPILERS}
POLICY = Path("/usr/sbin/policy-rc.d")
SYSTEM_FOLDERS = "/usr/sbin:/usr/local/sbin:/sbin"


def program(name: str) -> str | None:
    """Path of a program, also where only root's PATH looks; any C compiler does for ``cc``."""
    path = f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_FOLDERS}"
    return next(
        (found for each in ALTERNATIVES.get(name, (name,)) if (found := shutil.which(each, path=path))), None
    )


def needed_programs(groups: Collection[str], settings: StackSettings) -> list[str]:
    """Programs that the groups call for; Maven only while jars are missing here and in the cache."""
    names = [name for group in NEEDS if group in groups for name in NEEDS[group]]
    if any(name in groups and missing_names(jar_folder(settings, name), listed_sums(name)) for name in SETS):
        names.append("mvn")
    return list(dict.fromkeys(names))


def missing_packages(programs: Collection[str]) -> list[str]:
    """Packages of the programs that cannot be found."""
    return list(dict.fromkeys(PACKAGES[name] for name in programs if program(name) is None))


def ensure(groups: Collection[str], settings: StackSettings, say: Say) -> None:
    """Have every program that the groups need, see ensure_programs."""
    ensure_programs(needed_programs(groups, settings), say)


def ensure_programs(programs: Collection[str], say: Say) -> None:
    """Install what is missing when we are root on Debian; else say the one command that helps.

    Raises StackError with that command, also when apt-get fails.
    """
    packages = missing_packages(programs)
    if not packages:
        return
    command = "apt-get install --no-install-recommends " + " ".join(packages)
    if os.geteuid() != 0 or program("apt-get") is None:
        raise StackError(f"not installed: {', '.join(packages)}; on Debian, as root: {command}")
    say(f"installing Debian packages: {' '.join(packages)}")
    with services_held_back():
        if not _apt(["install", *packages]):
            say("refreshing Debian's package lists")
            _apt(["update"])
            if not _apt(["install", *packages]):
                raise StackError(f"apt-get could not install {' '.join(packages)}; try yourself: {command}")
    still = missing_packages(programs)
    if still:
        raise StackError(f"installed, yet its program is not on PATH: {', '.join(still)}")


@contextmanager
def services_held_back(policy: Path = POLICY) -> Iterator[None]:
    """Forbid packages to start services while they are installed; what was there before comes back."""
    before = policy.read_bytes() if policy.exists() else None
    mode = stat.S_IMODE(policy.stat().st_mode) if before is not None else 0o755
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        if before is None:
            policy.unlink(missing_ok=True)
        else:
            policy.write_bytes(before)
            policy.chmod(mode)


def _apt(arguments: list[str]) -> bool:
    """Run apt-get without questions; False when it fails."""
    options = [
        "-y",
        "-q",
        "--no-install-recommends",
        "-o",
        "Dpkg::Use-Pty=0",
        "-o",
        "Acquire::Retries=3",
    ]
    done = subprocess.run(
        ["apt-get", *options, *arguments],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode == 0
