"""Starts and ends one component process.

A child has three non-blocking pipes, is the leader of its own process group (a Ctrl-C at the terminal is the
runner's to handle; it stays in the runner's session, so that the kernel shares the cores among whole
topologies) and is killed by the kernel if the runner dies without a word (Linux; elsewhere it ends when its
stdin does).
"""

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_F_SETPIPE_SZ = getattr(fcntl, "F_SETPIPE_SZ", None)
_STDIN_BYTES = 256 * 1024
_STDOUT_BYTES = 1024 * 1024


def keep_freed_memory() -> None:
    """Has glibc keep what was freed (up to 64 MiB) for the next message.

    Otherwise each message of 100 KB gives its pages back to the kernel and faults them in again, which costs
    three times as much as all that the hub does with it. Elsewhere than on glibc this does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        mallopt(_M_TRIM_THRESHOLD, 64 << 20)


def _die_with_parent() -> Callable[[], None] | None:
    """Run in the child between fork and exec."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask


def _pipe(descriptor: int, size: int) -> int:
    """Makes our end non-blocking and the pipe roomy: a tuple of 100 KB then costs one wake-up, not two."""
    os.set_blocking(descriptor, False)
    if _F_SETPIPE_SZ is not None:
        with contextlib.suppress(OSError):  # the user's share of pipe memory may be used up
            fcntl.fcntl(descriptor, _F_SETPIPE_SZ, size)
    return descriptor


class Child:
    """A running component process. `exits` is readable when it has ended (None where pidfds are unknown)."""

    def __init__(self, command: Sequence[str], folder: Path, env: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            process_group=0,
            preexec_fn=_die_with_parent(),  # noqa: PLW1509 - a single system call, no locks taken
        )
        self.pid = self._process.pid
        process = self._process
        assert process.stdin
        assert process.stdout
        assert process.stderr
        self.stdin = _pipe(process.stdin.fileno(), _STDIN_BYTES)
        self.stdout = _pipe(process.stdout.fileno(), _STDOUT_BYTES)
        self.stderr = process.stderr.fileno()
        os.set_blocking(self.stderr, False)
        self.exits: int | None = None
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                self.exits = os.pidfd_open(self.pid)

    def exit_code(self) -> int | None:
        """Its exit code (negative: the signal that ended it), None while it runs."""
        return self._process.poll()

    def close_stdin(self) -> None:
        """Tells it that nothing more will come, which ends a component of the multilang protocol."""
        assert self._process.stdin
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def signal(self, number: int) -> None:
        """Signals it and all it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def kill(self) -> None:
        """Ends it at once, with all it started."""
        self.signal(signal.SIGKILL)

    def reap(self) -> int:
        """Waits for it to end (it must have been told to), ends what it left behind, closes the pipes."""
        code = self._process.wait()
        self.signal(signal.SIGKILL)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            with contextlib.suppress(OSError):
                if stream:
                    stream.close()
        if self.exits is not None:
            os.close(self.exits)
            self.exits = None
        return code


def describe_exit(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def is_alive(pid: int) -> bool:
    """Whether a process has this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
