"""Loopback ports for servers of a test's own."""

from __future__ import annotations

import random
import socket

_given: set[int] = set()
# pytest-randomly seeds `random` anew before each test: all processes would try the same ports first.
_random = random.SystemRandom()


def free_ports(count: int) -> list[int]:
    """Ports that were free just now, below those that the system hands out to connections; none twice in a process.

    Raises RuntimeError where there are not so many.
    """
    found: list[int] = []
    for port in _random.sample(range(21_000, 32_000), 11_000):
        if len(found) == count:
            break
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
    if len(found) < count:
        raise RuntimeError(f"{count} free ports are wanted, there are {len(found)}")
    _given.update(found)
    return found
