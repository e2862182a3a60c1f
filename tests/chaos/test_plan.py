"""The schedule of faults: a pure function of the seed, and within its bounds."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.chaos import embedded, plan, stack
from bench.chaos.plan import (
    AWAY,
    COLLECTOR_SKEW_S,
    CUT,
    DELAY,
    FAILOVER,
    FIRST_S,
    FULL,
    HOLE,
    KILL,
    KINDS,
    LOCK,
    LOSE,
    REBALANCE,
    SKEW,
    SLOW,
    STOP,
    TRICKLE,
    Fault,
    schedule,
)

WRITTEN = (Fault(3.08, LOCK, "f", 2.12), Fault(3.94, KILL, "a", 0.0), Fault(9.25, KILL, "a", 0.0))
TARGETS = {
    KILL: ["a", "b"],
    STOP: ["a", "b"],
    SLOW: ["redis"],
    LOSE: ["redis"],
    LOCK: ["file"],
    CUT: ["redis", "collector"],
    HOLE: ["redis"],
    DELAY: ["redis"],
    TRICKLE: ["redis"],
    FULL: ["file"],
    SKEW: ["a", "services"],
    FAILOVER: ["redis"],
    REBALANCE: ["a", "b"],
    AWAY: ["redis"],
}
seeds = st.integers(0, 10**9)
few = settings(max_examples=25)


@few
@given(seeds)
def test_a_seed_gives_one_schedule(seed):
    assert schedule(seed, 60, TARGETS) == schedule(seed, 60, TARGETS)


def test_a_schedule_is_the_same_on_every_machine():
    # Written down once: a run that is told by its seed must be that run next year, too.
    assert schedule(1, 10, {KILL: ["a", "b"], LOCK: ["f"]}) == WRITTEN


def test_seeds_differ():
    assert len({schedule(seed, 60, TARGETS) for seed in range(50)}) == 50


@few
@given(seeds, st.floats(5, 200))
def test_faults_begin_and_end_within_the_traffic(seed, seconds):
    for fault in schedule(seed, seconds, TARGETS):
        assert fault.at >= FIRST_S
        assert fault.at + fault.seconds <= seconds


@few
@given(seeds)
def test_nobody_is_held_twice_at_a_time(seed):
    free_at: dict[str, float] = {}
    for fault in schedule(seed, 200, TARGETS):
        if fault.kind != KILL:
            assert fault.at > free_at.get(fault.target, 0.0)
            free_at[fault.target] = fault.at + fault.seconds


@few
@given(seeds)
def test_amounts_are_of_their_kind(seed):
    faults = schedule(seed, 200, TARGETS, [SKEW, REBALANCE, KILL])
    for fault in faults:
        if fault.kind == KILL:
            assert fault.amount == 0
        elif fault.kind == REBALANCE:
            assert fault.amount in {1, 2}
        else:
            assert 60 <= abs(fault.amount) <= (COLLECTOR_SKEW_S if fault.target == "services" else 600)


@few
@given(seeds)
def test_one_topology_is_moved_at_a_time(seed):
    at = [fault.at for fault in schedule(seed, 300, TARGETS, [REBALANCE])]
    assert all(later - sooner > 15 for sooner, later in itertools.pairwise(at))


@few
@given(seeds, st.sets(st.sampled_from(sorted(KINDS)), min_size=1))
def test_only_what_was_asked_for_befalls_only_whom_it_can(seed, kinds):
    for fault in schedule(seed, 60, TARGETS, kinds):
        assert fault.kind in kinds
        assert fault.target in TARGETS[fault.kind]


def test_the_order_of_the_kinds_does_not_matter():
    assert schedule(7, 60, TARGETS, [KILL, STOP]) == schedule(7, 60, TARGETS, [STOP, KILL, KILL])


def test_everybody_gets_a_turn():
    seen = {(f.kind, f.target) for seed in range(40) for f in schedule(seed, 60, TARGETS)}
    assert seen == {(kind, target) for kind, names in TARGETS.items() for target in names}


def test_without_targets_nothing_happens():
    assert schedule(1, 60, {KILL: []}) == ()


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="unknown fault 'flood'"):
        schedule(1, 60, TARGETS, ["flood"])


@pytest.mark.parametrize("targets", [embedded.targets(), stack.targets()])
def test_every_place_has_known_kinds_only(targets):
    assert set(targets) <= set(KINDS)
    assert all(targets.values())


def test_a_fault_is_one_line():
    assert Fault(3.5, STOP, "redis", 2.25).line() == "   3.5 s  stop redis 2.2 s"
    assert Fault(12.0, KILL, "redis", 0.0).line() == "  12.0 s  kill redis"
    assert set(plan._WEIGHTS) == set(KINDS)
