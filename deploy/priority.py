"""Who gets the cores first where they do not suffice for all: an answer is due in milliseconds, a slice in tenths of a second."""

from __future__ import annotations

import os
import time
from pathlib import Path

# A third of the others' share (each step of nice is a factor of 1.25), so that a flood of questions slows slices and does not stop them.
GIVE_WAY = 5
_AUTOGROUP = Path("/proc/self/autogroup")
_PAUSE_S, _TRIES = 0.05, 20


def give_way(nice: int) -> None:
    """Makes this process, which leads a session of its own, and what it starts in there give way by so many steps of nice.

    Linux shares the cores among sessions first where it groups processes by them (`kernel.sched_autogroup_enabled`); nice then only
    counts within a session, and the session has a nice of its own. Not being allowed to is no error.
    """
    if not nice:
        return
    os.nice(nice)
    for _ in range(_TRIES):
        try:
            _AUTOGROUP.write_text(f"{nice}\n")
        except BlockingIOError:  # the kernel takes one such change in 0.1 s of those who are not root
            time.sleep(_PAUSE_S)
        except OSError:  # not Linux, or built without
            return
        else:
            return
