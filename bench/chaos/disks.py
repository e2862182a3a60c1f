"""Small disks that can be filled to the last byte: a tmpfs under each data folder, seen by this run's processes only.

Promises: they live in a mount namespace of this process and its children, so that none is left when these have ended,
however they end; what is to be kept is on the real disk after `release`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clicktide.errors import ClicktideError

_CLONE_NEWNS = 0x00020000


@dataclass(frozen=True, slots=True)
class Disk:
    """One of them. It is filled by making it as small as what is on it: that takes no memory, and no time."""

    folder: Path
    megabytes: int
    after: Callable[[], object] | None = None  # what its owner does when there is space again

    def fill(self) -> None:
        """Leave nothing of the disk; to be repeated, since others delete files."""
        found = os.statvfs(self.folder)
        if found.f_bfree:
            used = (found.f_blocks - found.f_bfree) * found.f_frsize
            with contextlib.suppress(ClicktideError):  # somebody has written meanwhile: the next time, then
                _run("mount", "-o", f"remount,size={max(used, found.f_frsize)}", str(self.folder))

    def empty(self) -> None:
        """Give the space back."""
        _run("mount", "-o", f"remount,size={self.megabytes}m", str(self.folder))
        if self.after is not None:
            self.after()


class Disks:
    """`why_not`: why there can be none ("" where there can); without `wanted` there are none, either. From the main
    thread only: a namespace is a thread's."""

    def __init__(self, *, wanted: bool = True) -> None:
        self.why_not = _own_namespace() if wanted else "not asked for"
        self._disks: list[Disk] = []

    def mount(self, folder: Path, megabytes: int) -> Disk | None:
        """A disk of this size at `folder`, which is made; None where there can be no disks."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.why_not:
            return None
        _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "clicktide-chaos", str(folder))
        self._disks.append(Disk(folder, megabytes))
        return self._disks[-1]

    def release(self, *, keep: bool) -> None:
        """Take the disks away; with `keep`, what is on them stays in their folders. Nothing may use them any more."""
        while self._disks:
            folder = self._disks.pop().folder
            kept = folder.with_name(folder.name + ".kept")
            if keep:
                shutil.copytree(folder, kept, symlinks=True, ignore=_no_sockets)
            with contextlib.suppress(ClicktideError):
                _run("umount", str(folder))
            if keep:
                shutil.copytree(kept, folder, symlinks=True, dirs_exist_ok=True)
                shutil.rmtree(kept)


def _own_namespace() -> str:
    if sys.platform != "linux":
        return "small disks need Linux"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        return f"no small disks: {os.strerror(ctypes.get_errno())} (root may mount them)"
    try:
        _run("mount", "--make-rprivate", "/")
    except ClicktideError as e:
        return f"no small disks: {e}"
    return ""


def _run(*words: str) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError as e:
        raise ClicktideError(f"{words[0]}: {e.strerror}") from e
    if done.returncode != 0:
        raise ClicktideError(f"{' '.join(words[:1])}: {' '.join(done.stderr.split())}")


def _no_sockets(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(folder) / name).is_socket()]
