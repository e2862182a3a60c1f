"""The gate: who floods another is not read from, but never a component of a ring, which would lock it up for good."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace

import pytest

from localstorm.backpressure import FLOOD, Gate

# spout -> a -> b -> a (a ring), b -> end
CONSUMERS = {"spout": {"default": ["a"]}, "a": {"default": ["b"]}, "b": {"default": ["a", "end"]}, "end": {}}
DOWNSTREAM = {"spout": {"a", "b", "end"}, "a": {"a", "b", "end"}, "b": {"a", "b", "end"}, "end": set()}


class Task:
    def __init__(self, name):
        self.name, self.outbox, self.outbox_bytes = name, deque(), 0
        self.over, self.reading, self.child = False, True, SimpleNamespace(stdout=name)


@pytest.fixture
def hub():
    tasks = {name: Task(name) for name in CONSUMERS}
    plan = SimpleNamespace(
        number=lambda _name, _default: 2,
        components=[SimpleNamespace(name=name) for name in CONSUMERS],
        downstream=DOWNSTREAM.__getitem__,
        consumers=CONSUMERS.__getitem__,
    )
    read_again = []
    made = SimpleNamespace(
        plan=plan,
        tasks=list(tasks.values()),
        by_name=tasks,
        unwatch=lambda _descriptor: None,
        read_again=read_again,
        supervisor=SimpleNamespace(watch_stdout=read_again.append),
    )
    made.gate = Gate(made)
    return made


def flood(hub, name):
    task = hub.by_name[name]
    for n in range(2 * FLOOD):
        task.outbox.append(n)
        if len(task.outbox) == 2:
            hub.gate.grown(task)
    hub.gate.shrunk(task)


def paused(hub):
    return {name for name, task in hub.by_name.items() if hub.gate.is_paused(task)}


def test_a_ring_full_on_all_sides_is_still_read(hub):
    """With a and b both unread, each would block on its own pipe and never take what waits for it."""
    flood(hub, "a")
    flood(hub, "b")
    assert paused(hub) == {"spout"}
    assert hub.by_name["a"].reading
    assert hub.by_name["b"].reading


def test_outside_a_ring_who_floods_is_not_read_until_it_is_over(hub):
    flood(hub, "a")
    assert not hub.by_name["spout"].reading
    assert hub.gate.closed_for(hub.by_name["spout"])
    hub.by_name["a"].outbox.clear()
    hub.gate.shrunk(hub.by_name["a"])
    assert paused(hub) == set()
    assert hub.read_again == [hub.by_name["spout"]]
    assert not hub.gate.closed_for(hub.by_name["spout"])
