"""Holds a data directory: makes it, and keeps a second demo out of it.

Promises: the hold ends with the process that has it, whatever ends that process; a directory that cannot be used
gives one clear line and nothing is left in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from deploy.embedded.errors import EmbeddedError
from deploy.embedded.places import Places

MINIMUM_FREE_MB = 200


def prepare_folders(places: Places) -> None:
    """Makes the data directory and its folders; raises `EmbeddedError` where that cannot be."""
    try:
        for folder in (places.root, places.redis, places.logs, places.truths):
            folder.mkdir(parents=True, exist_ok=True)
        probe = places.root / f".probe-{os.getpid()}"
        probe.write_bytes(b"x")
        probe.unlink()
    except FileExistsError as e:
        raise EmbeddedError(f"the data directory {e.filename} is a file; expected a folder") from e
    except NotADirectoryError as e:
        raise EmbeddedError(f"the data directory {places.root} lies below a file") from e
    except OSError as e:
        raise EmbeddedError(f"cannot write to the data directory {places.root}: {e.strerror}") from e
    if free_mb(places.root) < MINIMUM_FREE_MB:
        raise EmbeddedError(
            f"the disk of {places.root} has {free_mb(places.root)} MB left; expected {MINIMUM_FREE_MB} at least"
        )


def free_mb(place: Path) -> int:
    return shutil.disk_usage(place).free >> 20


@contextlib.contextmanager
def held(lock_file: Path) -> Iterator[None]:
    """Holds the lock; raises `EmbeddedError` with the pid of who has it."""
    with open(os.open(lock_file, os.O_RDWR | os.O_CREAT, 0o644), "r+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = file.read().strip() or "unknown"
            raise EmbeddedError(
                f"a demo runs on {lock_file.parent} already, pid {holder}; end it, or choose another --data-dir"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
