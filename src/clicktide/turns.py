"""Turns: how long a process runs before another one that waits for the core gets it.

Whoever answers in milliseconds asks for short turns: the kernel then wakes it sooner, in the middle of another one's longer turn,
and its share of the cores stays what it was (Linux' EEVDF scheduler: a shorter slice is an earlier deadline; from 6.12 on a slice
can be asked for, earlier kernels take the call and do nothing).
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from typing import Final

SHORT_S: Final = 0.0004
"""Between the 0.1 ms that the kernel takes at least and its own 1.4 to 3 ms."""

# sched_setattr(2): glibc has a function for it only from 2.41 on.
_CALL: Final = {"x86_64": 314, "aarch64": 274, "riscv64": 274}
# size, policy, flags, nice, priority, runtime (ns), deadline, period: the first version of its `struct sched_attr`.
_ATTRIBUTES: Final = struct.Struct("=IIQiIQQQ")


def short(seconds: float = SHORT_S) -> None:
    """Asks for turns of so many seconds for this thread, and for what it starts from then on. Not being able to is no error.

    A thread of a policy of its own (real time, batch, idle) is left alone.
    """
    number = _CALL.get(platform.machine())
    if number is None or not hasattr(os, "SCHED_OTHER") or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    # The call sets the nice value too.
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    wanted = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, nice, 0, int(seconds * 1e9), 0, 0)
    _call(number, wanted)


def _call(number: int, attributes: bytes) -> None:
    ctypes.CDLL(None).syscall(number, 0, attributes, 0)
