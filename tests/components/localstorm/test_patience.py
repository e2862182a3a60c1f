"""When a silent process is given up, and when a run is over, by a clock of the test's own and without processes."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from localstorm import wire
from localstorm.hub import Hub
from localstorm.logs import LogFiles
from localstorm.plan import ComponentPlan, InputPlan, Plan, StreamPlan
from localstorm.reporting import Reporter, Silence
from localstorm.settings import Settings
from localstorm.spouting import IDLE_MOST
from localstorm.stats import Sampler
from localstorm.testing import is_idle

ALLOWED = 3.0
FAIL = wire.outcome("fail", b"7")


@pytest.fixture
def hub(tmp_path):
    """Of a spout and a bolt, both up and with nothing to do."""
    components = (
        ComponentPlan("numbers", "spout", "x", "", outputs={"default": StreamPlan(("n",))}),
        ComponentPlan("slow", "bolt", "x", "", inputs=(InputPlan("numbers"),)),
    )
    plan = Plan("zoo", components, {"topology.subprocess.timeout.secs": ALLOWED})
    reporter = Reporter(Silence(), LogFiles(tmp_path, "zoo"), Sampler("zoo", 0.0), None)
    hub = Hub(Settings(plan=plan, project=tmp_path, log_dir=tmp_path), reporter, clock=lambda: 0.0)
    hub.course.phase = "running"
    for task in hub.tasks:
        stdout, says = os.pipe()
        os.set_blocking(stdout, False)
        task.child = SimpleNamespace(exits=0, kill=lambda: None, stdout=stdout, says=says)
        task.greeted = task.ready = task.reading = True
    yield hub
    reporter.close([])
    pipes = [end for task in hub.tasks for end in (task.child.stdout, task.child.says)]
    for descriptor in (hub._wake_read, hub._wake_write, *pipes):
        os.close(descriptor)
    hub._selector.close()


def elapse(hub, seconds):
    hub.now += seconds
    hub.supervisor.tend()


def test_a_spout_that_had_no_answer_to_give_has_its_time_once_it_has(hub):
    """At its limit of pending trees it is silent for as long as a bolt hangs."""
    (spout,) = hub.spouts
    elapse(hub, 10 * ALLOWED)
    hub.tell(spout, "fail", FAIL)
    elapse(hub, 0.9 * ALLOWED)
    assert spout.doomed is None
    elapse(hub, 0.2 * ALLOWED)
    assert spout.doomed.startswith("silent for 3 s")


def test_what_a_hanging_spout_is_told_gives_it_no_more_time(hub):
    (spout,) = hub.spouts
    for _ in range(4):
        hub.tell(spout, "fail", FAIL)
        elapse(hub, 0.3 * ALLOWED)
    assert spout.doomed


def test_what_was_said_while_the_hub_stood_still_counts(hub):
    (spout,) = hub.spouts
    hub.tell(spout, "fail", FAIL)
    os.write(spout.child.says, b'{"command":"sync"}\nend\n')
    elapse(hub, 10 * ALLOWED)
    assert spout.doomed is None
    hub.tell(spout, "fail", FAIL)
    elapse(hub, 1.1 * ALLOWED)
    assert spout.doomed


def test_a_run_is_not_over_while_a_spout_has_to_hear_of_a_failed_tree(hub):
    (spout,) = hub.spouts
    spout.spout.active, spout.spout.idle = True, IDLE_MOST
    spout.spout.sent("next", hub.now)
    assert is_idle(hub)
    spout.spout.sent("fail", hub.now)
    assert not is_idle(hub)
