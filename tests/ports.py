"""Loopback ports for servers of a test's own."""

from __future__ import annotations

import random
import socket

_given: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Ports that were free just now, below those that the system hands out to connections; none twice in a process."""
    found: list[int] = []
    for port in random.sample(range(21_000, 32_000), 2_000):
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
    _given.update(found)
    return found
