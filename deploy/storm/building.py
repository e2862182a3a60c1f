"""Building a topology's jar, one at a time in a project: every build begins by deleting what the one before has built.

streamparse builds and then starts `storm`; with ours that is when the next one may begin, since it takes a copy of the jar
first. An official `storm` says nothing of the kind: there a submit holds the turn to its end, and a run takes none.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path

# Where `storm` says that it has its own copy of the jar: the file is removed.
TAKEN = "TIDE_JAR_TAKEN"
_POLL_S = 0.1


@contextmanager
def turn(project: Path, say: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Wait for this project's turn to build; answers with how to end it early. A project without project.clj has none to wait for."""
    try:
        held = os.open(project / "project.clj", os.O_RDONLY)
    except OSError:
        yield lambda: None
        return
    try:
        if not _locked(held):
            say("another sparse builds in this project; waiting for it")
            while not _locked(held):
                time.sleep(_POLL_S)
        yield lambda: fcntl.flock(held, fcntl.LOCK_UN)
    finally:
        os.close(held)


def _locked(held: int) -> bool:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def take(jar: str, folder: Path, environ: MutableMapping[str, str]) -> str:
    """The jar that `storm` is to use: its own copy where whoever started it waits to build another one, and is told so."""
    waiting = environ.pop(TAKEN, "")
    if not waiting:
        return jar
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.jar"):
        if not Path(f"/proc/{old.stem}").exists():
            old.unlink(missing_ok=True)
    own = shutil.copy(jar, folder / f"{os.getpid()}.jar")
    Path(waiting).unlink(missing_ok=True)
    return str(own)
