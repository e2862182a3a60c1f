"""Whom faults befall by name in every place: the components, each by the class that its processes are told to run."""

from __future__ import annotations

import os
import socket

CLASSES = {
    "events.spout": "KafkaSpout",
    "events.parse": "ParseBolt",
    "events.aggregate": "AggregateBolt",
    "events.persist": "PersistBolt",
    "redrive.retry_spout": "RetrySpout",
    "redrive.retry": "RetryBolt",
    "divert": "DivertBolt",
}
# Whose clocks can be set: what is in Python. The servers have the machine's.
CLOCK_WORDS = {**CLASSES, "services": "services"}


def free_ports(count: int, after: int = 0) -> list[int]:
    """Loopback ports beyond `after` and below the system's own range, that nothing listens on now."""
    out: list[int] = []
    port = after or 21000 + os.getpid() % 8000
    while len(out) < count:
        port += 1
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        out.append(port)
    return out
