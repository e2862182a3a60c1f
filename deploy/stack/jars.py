"""The jars that Kafka and Storm run from: fetched by Maven once, checked, shared through a cache.

A jar that is not on the committed list, or differs from it, never reaches a class path.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from deploy.stack.errors import StackError
from deploy.stack.servers.base import Say
from deploy.stack.settings import StackSettings, settings_from

LISTS = Path(__file__).parent / "jarsets"
SETS = ("kafka", "storm")
VERIFIED = ".verified"


def jar_folder(settings: StackSettings, name: str) -> Path:
    """Where the jars of the set lie; filled by ensure_jars."""
    return settings.folder("jars", name)


def read_checksums(text: str) -> dict[str, str]:
    """File name -> SHA-256 in hex, from lines as sha256sum writes them. Raises StackError on any other line."""
    sums: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not name.endswith(".jar") or "/" in name:
            raise StackError(f"checksum list, line {number}: expected '<sha256>  <name>.jar', found {line!r}")
        sums[name] = digest
    return sums


def listed_sums(name: str) -> dict[str, str]:
    """The committed checksum list of a set."""
    return read_checksums((LISTS / f"{name}.sha256").read_text())


def differences(folder: Path, sums: Mapping[str, str]) -> list[str]:
    """What is wrong with the jars of a folder, one line a jar; empty when it holds exactly the list."""
    present = {path.name: path for path in folder.glob("*.jar")}
    wrong = [f"{name} is missing" for name in sorted(sums.keys() - present.keys())]
    wrong += [f"{name} is not on the list" for name in sorted(present.keys() - sums.keys())]
    for name in sorted(sums.keys() & present.keys()):
        found = sha256(present[name])
        if found != sums[name]:
            wrong.append(f"{name} has SHA-256 {found}, expected {sums[name]}")
    return wrong


def sha256(path: Path) -> str:
    """SHA-256 of a file in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def ensure_jars(settings: StackSettings, name: str, say: Say) -> Path:
    """The folder with exactly the listed jars: as it is, else from the cache, else by Maven.

    Raises StackError when they cannot be had, or when what came is not what the list says.
    """
    listing = (LISTS / f"{name}.sha256").read_text()
    sums = read_checksums(listing)
    folder = jar_folder(settings, name)
    stamp = folder / VERIFIED
    if stamp.exists() and stamp.read_text() == listing and not missing_names(folder, sums):
        return folder
    cached = settings.cache / "jars" / f"{name}-{hashlib.sha256(listing.encode()).hexdigest()[:12]}"
    if missing_names(cached, sums) or differences(cached, sums):
        _download(name, sums, cached, say)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder.parent))
    for jar in sums:
        _link(cached / jar, fresh / jar)
    _refuse(name, differences(fresh, sums))
    (fresh / VERIFIED).write_text(listing)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    return folder


def missing_names(folder: Path, sums: Mapping[str, str]) -> list[str]:
    """Listed jars that the folder lacks, by name only (quick)."""
    return [name for name in sums if not (folder / name).is_file()]


def _download(name: str, sums: Mapping[str, str], cached: Path, say: Say) -> None:
    """Fill the cache by Maven, all or nothing: another checkout may be doing the same."""
    cached.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=cached.parent))
    try:
        _maven(name, fresh, say, expected=len(sums))
        _refuse(name, differences(fresh, sums))
        shutil.rmtree(cached, ignore_errors=True)
        fresh.rename(cached)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _refuse(name: str, wrong: list[str]) -> None:
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise StackError(
            f"the jars of {name} are not those of deploy/stack/jarsets/{name}.sha256: {wrong[0]}{more}"
        )


def _maven(name: str, folder: Path, say: Say, *, expected: int) -> None:
    """Copy the set's jars to ``folder``, telling how far it is about every tenth of them."""
    goals = ["dependency:copy-dependencies"]
    if "<artifactItems>" in (LISTS / f"{name}.pom.xml").read_text():
        goals.append("dependency:copy")
    argv = ["mvn", "-B", "-f", str(LISTS / f"{name}.pom.xml"), *goals]
    argv += ["-DincludeScope=runtime", f"-DoutputDirectory={folder}"]
    say(f"{name}: fetching {expected} jars with Maven")
    try:
        process = subprocess.Popen(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        )
    except FileNotFoundError:
        raise StackError("Maven (mvn) is missing; as root: apt-get install maven") from None
    jars, errors = 0, []
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("[ERROR]"):
                errors.append(line.removeprefix("[ERROR]").strip())
            elif "Downloaded from" in line and ".jar" in line:
                jars += 1
                if jars % 20 == 0:
                    say(f"{name}: {jars} jars fetched, Maven's own among them")
    if process.returncode != 0:
        reason = (errors or ["no reason given"])[0]
        raise StackError(f"Maven could not fetch the jars of {name} (is the network there?): {reason}")


def _link(source: Path, target: Path) -> None:
    """A hard link where the cache is on the same disk, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def pin(name: str) -> None:
    """Write the checksum list anew from what Maven gives now; its diff is what a reviewer reads."""
    with tempfile.TemporaryDirectory() as folder:
        _maven(name, Path(folder), print, expected=0)
        lines = [f"{sha256(path)}  {path.name}\n" for path in sorted(Path(folder).glob("*.jar"))]
    (LISTS / f"{name}.sha256").write_text("".join(lines))
    print(f"{name}: {len(lines)} jars pinned")


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "pin" and sys.argv[2] in SETS:
        pin(sys.argv[2])
    elif len(sys.argv) == 2 and sys.argv[1] == "fetch":
        for each in SETS:
            ensure_jars(settings_from(os.environ), each, print)
    else:
        sys.exit(f"usage: python -m deploy.stack.jars pin {'|'.join(SETS)}  or  fetch")
