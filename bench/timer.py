"""A timer that a loop can wait for by its file descriptor: loops themselves wait by the millisecond.

Linux' timerfd, which Python has from 3.13 on.
"""

from __future__ import annotations

import ctypes
import os
import struct

_CLOCK_MONOTONIC, _ABSOLUTE = 1, 1
_SPEC = struct.Struct("=qqqq")  # interval, first time: s and ns each
_COUNT = struct.Struct("=Q")
_NS = 1_000_000_000


class Timer:
    """Passes at `first` (`time.monotonic` s) and every `interval` seconds after that; `fd` is readable when it has. Raises `OSError`."""

    def __init__(self, first: float, interval: float) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._passed = 0
        self.fd = self._checked(self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC))
        each, at = max(1, round(interval * _NS)), max(1, round(first * _NS))
        spec = _SPEC.pack(each // _NS, each % _NS, at // _NS, at % _NS)
        self._checked(self._libc.timerfd_settime(self.fd, _ABSOLUTE, spec, None))

    def passed(self) -> int:
        """How often it has passed until now."""
        try:
            self._passed += _COUNT.unpack(os.read(self.fd, _COUNT.size))[0]
        except BlockingIOError:
            pass
        return self._passed

    def close(self) -> None:
        os.close(self.fd)

    @staticmethod
    def _checked(result: int) -> int:
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result
