"""Who gets the cores first where they do not suffice for all: an answer is due in milliseconds, a slice in tenths of a second."""

from __future__ import annotations

import os
import time
from pathlib import Path

# Each step of nice is a factor of 1.25. A third of the others' share, where topologies wait for servers that are under load as well.
GIVE_WAY = 5
# A tenth, on one machine with whoever asks: a flood of questions slows slices, which may wait tenths of a second, and does not stop them.
GIVE_WAY_MORE = 10
_PROCESSES = Path("/proc")
_PAUSE_S, _TRIES = 0.05, 20


def give_way(nice: int, pid: int = 0) -> None:
    """Makes a process (0: this one), which leads a session of its own, and what it starts in there give way by so many steps of nice.

    Linux shares the cores among sessions first where it groups processes by them (`kernel.sched_autogroup_enabled`); nice then only
    counts within a session, and the session has a nice of its own. Not being allowed to is no error.
    """
    if not nice:
        return
    os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, pid) + nice)
    session = _PROCESSES / (str(pid) if pid else "self") / "autogroup"
    for _ in range(_TRIES):
        try:
            session.write_text(f"{nice}\n")
        except BlockingIOError:  # the kernel takes one such change in 0.1 s of those who are not root
            time.sleep(_PAUSE_S)
        except OSError:  # not Linux, or built without
            return
        else:
            return
