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
from pathlib import Path

from clicktide.errors import ClicktideError

_CLONE_NEWNS = 0x00020000
_BALLAST = "ballast"
_PIECE = 1 << 20


class Disks:
    """`why_not`: why there can be none ("" where there can); without `wanted` there are none, either. From the main
    thread only: a namespace is a thread's."""

    def __init__(self, *, wanted: bool = True) -> None:
        self.why_not = _own_namespace() if wanted else "not asked for"
        self._folders: list[Path] = []

    def mount(self, folder: Path, megabytes: int) -> None:
        """A disk of this size at `folder`, which is made; nothing where there can be no disks."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.why_not:
            return
        _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "clicktide-chaos", str(folder))
        self._folders.append(folder)

    def is_mounted(self, folder: Path) -> bool:
        return folder in self._folders

    def release(self, *, keep: bool) -> None:
        """Take the disks away; with `keep`, what is on them stays in their folders. Nothing may use them any more."""
        while self._folders:
            folder = self._folders.pop()
            kept = folder.with_name(folder.name + ".kept")
            if keep:
                empty(folder)
                shutil.copytree(folder, kept, symlinks=True, ignore=_no_sockets)
            with contextlib.suppress(ClicktideError):
                _run("umount", str(folder))
            if keep:
                shutil.copytree(kept, folder, symlinks=True, dirs_exist_ok=True)
                shutil.rmtree(kept)


def fill(folder: Path) -> None:
    """Leave nothing of the disk; again and again, as others delete files."""
    with (folder / _BALLAST).open("ab", buffering=0) as ballast:
        size = _PIECE
        while size:
            try:
                if not ballast.write(bytes(size)):
                    size //= 2
            except OSError:
                size //= 2


def empty(folder: Path) -> None:
    """Give the disk's space back."""
    (folder / _BALLAST).unlink(missing_ok=True)


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
