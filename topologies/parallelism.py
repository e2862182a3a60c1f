"""Parallelism: how many tasks each component has, by environment. The one place to scale by editing.

`par` is the number of executors that a topology starts with. Storm fixes the number of *tasks* at submit, and
`storm rebalance -e bolt=n` cannot go beyond it: HEADROOM times as many tasks as executors leave room to grow while events
flow. A task is a process; one without an executor of its own shares one, so headroom costs a bolt memory and nothing else.
Spouts have none: tasks that share an executor wait for each other's polls, and one carries far more than the bolts behind it.

The number of workers is `topology.workers` in config.json, or `-w` on the command line.
"""

from __future__ import annotations

import os

# What `-e` of `./tide sparse` says; streamparse tells a topology file nothing of it.
ENVIRONMENT = os.environ.get("TIDE_ENV", "embedded")

SPOUT = {"embedded": 1, "stack": 1, "cluster": 4}
PARSE = {"embedded": 1, "stack": 1, "cluster": 8}
AGGREGATE = {"embedded": 1, "stack": 1, "cluster": 8}
PERSIST = {"embedded": 1, "stack": 1, "cluster": 8}
DIVERT = {"embedded": 1, "stack": 1, "cluster": 2}
RETRY_SPOUT = {"embedded": 1, "stack": 1, "cluster": 2}
RETRY = {"embedded": 1, "stack": 1, "cluster": 4}

HEADROOM = {"embedded": 1, "stack": 2, "cluster": 2}

# Storm's settings of every topology of ours. Kryo, which tuples go through between two workers, need not be told of any class: all
# that ours hold is text.
TOPOLOGY: dict[str, object] = {
    "topology.message.timeout.secs": 60,
    # A bolt in Python takes what it is given and waits elsewhere, so Storm holds the task that has all the work for idle and
    # gives it more: of two tasks one had 73,000 events and the other 5,000, and the executor that a rebalance had added none.
    "topology.disable.loadaware.messaging": True,
    # Slices are few and large: an executor that finds nothing to do had better sleep some milliseconds than spin a thousand
    # rounds (Storm's default), which cost more than all the work. Each hop is later by half of them (docs/performance.md).
    "topology.bolt.wait.progressive.level1.count": 1,
    "topology.bolt.wait.progressive.level2.count": 1,
    "topology.bolt.wait.progressive.level3.sleep.millis": 4,
    "topology.spout.wait.progressive.level3.sleep.millis": 4,
}

# What is tried again has waited for a second anyway: its topology looks for work less often, and costs next to nothing at rest.
UNHURRIED: dict[str, object] = {
    "topology.bolt.wait.progressive.level3.sleep.millis": 20,
    "topology.spout.wait.progressive.level3.sleep.millis": 20,
}


def settings(par: dict[str, int], *, grows: bool = True) -> dict[str, object]:
    """Storm's settings of a component with this parallelism; ticks carry its health report."""
    found: dict[str, object] = {"topology.tick.tuple.freq.secs": 2}
    if grows and HEADROOM.get(ENVIRONMENT, 1) > 1 and ENVIRONMENT in par:
        found["topology.tasks"] = par[ENVIRONMENT] * HEADROOM[ENVIRONMENT]
    return found
