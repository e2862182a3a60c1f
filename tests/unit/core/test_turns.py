"""Turns: what the kernel is asked for, and who is left alone."""

from __future__ import annotations

import os
import platform
import struct
import subprocess
import sys

import pytest

from clicktide import turns

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in turns._CALL, reason="the kernel's own"
)
_ENVIRON = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.fixture
def asked(monkeypatch):
    """What the kernel would have been asked for, by system call and attributes."""
    found = []
    monkeypatch.setattr(turns, "_call", lambda number, text: found.append((number, text)))
    return found


def test_it_asks_for_nanoseconds_and_keeps_nice(asked, monkeypatch):
    monkeypatch.setattr(os, "getpriority", lambda *_: 7)
    turns.short(0.0005)
    assert asked == [
        (turns._CALL[platform.machine()], struct.pack("=IIQiIQQQ", 48, 0, 0, 7, 0, 500_000, 0, 0))
    ]


@pytest.mark.parametrize("policy", [os.SCHED_FIFO, os.SCHED_RR, os.SCHED_BATCH, os.SCHED_IDLE])
def test_a_policy_of_ones_own_is_left_alone(asked, monkeypatch, policy):
    monkeypatch.setattr(os, "sched_getscheduler", lambda _: policy)
    turns.short()
    assert not asked


def test_a_machine_that_it_does_not_know_is_left_alone(asked, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "vax")
    turns.short()
    assert not asked


# Prints what sched_getattr(2) says, whose number is the next one.
_LOOK = """
import ctypes, os, platform, struct
from clicktide import turns
os.nice(2)
turns.short()
into = ctypes.create_string_buffer(48)
assert ctypes.CDLL(None).syscall(turns._CALL[platform.machine()] + 1, 0, into, 48, 0) == 0
found = struct.unpack("=IIQiIQQQ", into.raw)
print(found[1], found[3], found[5])
"""


def test_the_kernel_takes_it():
    done = subprocess.run(
        [sys.executable, "-P", "-c", _LOOK],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=_ENVIRON,
    )
    assert done.returncode == 0, done.stderr
    policy, nice, ns = map(int, done.stdout.split())
    assert (policy, nice) == (0, os.nice(0) + 2)
    major, minor = (int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
    if (major, minor) >= (6, 12):
        assert ns == int(turns.SHORT_S * 1e9)
