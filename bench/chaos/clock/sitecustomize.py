"""Python imports this at the start of a process of a chaos run: its wall clock is off by what its file says.

Promises: only `time.time` and `time.time_ns` are touched, and only in processes that have a file; the offset may change at any
moment. Monotonic clocks stay: those of a machine with a wrong clock do, too.
"""

import contextlib
import mmap
import os
import pathlib
import struct
import sys
import time

SECONDS = struct.Struct("<d")


def _install(folder: pathlib.Path) -> None:
    words = set(" ".join(sys.orig_argv).replace(".", " ").split())
    mine = [file for file in folder.iterdir() if file.name in words]
    if not mine:
        return
    with mine[0].open("rb") as file:
        offset = mmap.mmap(file.fileno(), SECONDS.size, access=mmap.ACCESS_READ)
    real, real_ns = time.time, time.time_ns
    time.time = lambda: real() + SECONDS.unpack(offset)[0]
    time.time_ns = lambda: real_ns() + int(SECONDS.unpack(offset)[0] * 1e9)


if _folder := os.environ.get("CLICKTIDE_CLOCKS"):
    with contextlib.suppress(OSError):  # the run is over
        _install(pathlib.Path(_folder))
