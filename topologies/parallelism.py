"""Parallelism: how many tasks each component has, by environment. The one place to scale by editing.

`par` is the number of executors that a topology starts with.
"""

from __future__ import annotations

SPOUT = {"embedded": 1, "stack": 1, "cluster": 4}
PARSE = {"embedded": 1, "stack": 2, "cluster": 8}
AGGREGATE = {"embedded": 1, "stack": 1, "cluster": 8}
PERSIST = {"embedded": 1, "stack": 2, "cluster": 8}
DIVERT = {"embedded": 1, "stack": 1, "cluster": 2}
RETRY_SPOUT = {"embedded": 1, "stack": 1, "cluster": 2}
RETRY = {"embedded": 1, "stack": 1, "cluster": 4}


def tasks() -> dict[str, object]:
    """Storm's settings of a component: ticks carry its health report."""
    return {"topology.tick.tuple.freq.secs": 2}
