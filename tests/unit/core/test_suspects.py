"""Poison that kills its worker is found and is the only one convicted, whatever else kills, loses and waits. Simulated time."""

from __future__ import annotations

import pytest
from unit.core.suspicion import Worker, limits

from clicktide.suspects import FLYING, ON_TRIAL, Note, Noted, inherit, of_offset, without


def check(worker, *, code="kills_worker"):
    assert worker.over()
    assert worker.dead == dict.fromkeys(worker.poison, code)
    for partition, count in enumerate(worker.written):
        assert set(worker.done[partition]) == {o for o in range(count) if (partition, o) not in worker.poison}


@pytest.mark.parametrize("at", [0, 1023, 2999])
def test_a_record_that_kills_its_worker_dies_alone(at):
    worker = Worker(at, partitions=4, poison={(1, at)}, limits=limits(slice_records=1000))
    for partition in range(4):
        worker.write(3000, partition)
    worker.run(240, rate=1)
    worker.run(60)
    check(worker)
    # One life without notes, poison_fails with, one trial of the slice, one of its piece, poison_fails of the record.
    assert worker.deaths <= 1 + 3 + 1 + 1 + 3


def test_the_others_go_on_while_it_is_looked_for():
    worker = Worker(1, partitions=4, poison={(1, 100)})
    for partition in range(4):
        worker.write(500, partition)
    worker.run(150, rate=10)
    assert worker.deaths >= 6
    for partition in (0, 2, 3):
        assert len(worker.done[partition]) >= worker.written[partition] - 20 * 10  # the last restart's
        assert worker.rig.committed(partition) >= 800
    worker.run(60, rate=5)
    worker.run(60)
    check(worker)


@pytest.mark.parametrize("seed", range(1))
def test_several_in_one_slice_several_slices_several_tasks(seed):
    poison = {(0, 3), (0, 4), (0, 40), (1, 120), (2, 0), (3, 399)}
    worker = Worker(seed, tasks=2, partitions=4, poison=poison)
    for partition in range(4):
        worker.write(400, partition)
    worker.run(700, rate=1)
    worker.run(60)
    check(worker)


@pytest.mark.parametrize("seed", range(2))
def test_kills_every_few_seconds_convict_nobody(seed):
    worker = Worker(seed, tasks=2, partitions=4, kill_every_s=4.0, restart_s=1.0)
    worker.run(200, rate=60)
    assert worker.deaths > 20
    worker.kill_every_s = None
    worker.run(600)
    check(worker)


@pytest.mark.parametrize("seed", range(2))
def test_the_guilty_one_is_found_among_kills(seed):
    worker = Worker(seed, tasks=2, partitions=4, poison={(2, 77)}, kill_every_s=25.0)
    for partition in range(4):
        worker.write(200, partition)
    worker.run(400, rate=5)
    assert worker.deaths > 12
    worker.kill_every_s = None
    worker.run(600)
    check(worker)


@pytest.mark.parametrize("seed", range(2))
def test_a_record_that_only_fails_is_poison(seed):
    worker = Worker(seed, partitions=2, poison={(0, 33)}, raises=True)
    worker.write(200, 0)
    worker.write(200, 1)
    worker.run(300, rate=5)
    worker.run(100)
    check(worker, code="poison")
    assert worker.deaths == 0


def test_one_that_waits_to_be_tried_again_is_found_too():
    """The topology `redrive`: partitions are paused until their head is due, and what others wait for goes on meanwhile."""
    worker = Worker(1, partitions=2, poison={(0, 33)}, wait_s=8.0)
    worker.write(100, 0)
    worker.write(100, 1)
    assert worker.sources[0].next(0.0) is None, "nothing is due"
    worker.run(240, rate=1)
    worker.run(60)
    check(worker)


def test_what_kills_everything_convicts_nobody():
    """A bad deploy: whatever is worked on ends the worker."""
    worker = Worker(1, partitions=2)
    worker.write(2, 0)
    worker.write(2, 1)
    worker.poison = {(p, o) for p in range(2) for o in range(2)}
    worker.run(900)
    assert worker.deaths > 20
    assert worker.dead == {}
    worker.poison = set()
    worker.run(300)
    check(worker)


def test_what_is_shared_by_all_while_something_fails_convicts_nobody():
    """The broker takes no dead letters for ten minutes: every slice fails; the records in memory stay bounded."""
    worker = Worker(1, partitions=2, raises=True)
    worker.write(2000, 0)
    worker.write(2000, 1)
    worker.poison = {(p, o) for p in range(2) for o in range(2000)}
    worker.run(600)
    (source,) = worker.sources
    assert source._fleet.open == worker.limits.in_flight
    assert source._fleet.in_flight <= worker.limits.in_flight
    waiting = len(source._trials.docket) + len(source._repeats) + source._fleet.in_flight
    assert waiting <= worker.limits.in_flight * 50
    assert worker.dead == {}
    worker.poison = set()
    worker.run(300)
    check(worker)


def test_without_redis_there_are_replays_and_no_convictions():
    worker = Worker(1, partitions=2, poison={(0, 5)})
    worker.write(100, 0)
    worker.write(100, 1)
    worker.notes.away, worker.rig.watch.run_id = True, None
    worker.run(300)
    assert worker.deaths > 10
    assert worker.dead == {}
    worker.notes.away, worker.rig.watch.run_id = False, "redis-1"
    worker.run(400)
    check(worker)


def test_a_redis_that_dies_too_is_no_evidence():
    worker = Worker(1, partitions=2, poison={(0, 5)})
    worker.write(100, 0)
    worker.write(100, 1)
    lives = 0
    while worker.deaths < 20:
        worker.run(1)
        if worker.deaths > lives:
            lives = worker.deaths
            worker.rig.watch.run_id = f"redis-{lives}"
            worker.start()  # of the next life all begins with the new Redis
    assert worker.dead == {}


# -- what one life learns from the one before

NOTE = Note("b1", "r1", "t", 10, 2, (Noted(10, 20, 1, way=FLYING), Noted(20, 30, 3, 1, way=ON_TRIAL)))


def test_what_was_on_its_way_has_failed():
    found = inherit(NOTE, "b2", "r1", "t", 10)
    assert (found.boot, found.lives) == ("b2", 3)
    assert found.ranges == (Noted(10, 20, 2), Noted(20, 30, 3, 2, killed=True))
    assert inherit(NOTE, "b2", "r1", "t", 10) == found, "asked again it is the same"


@pytest.mark.parametrize(("boot", "run_id"), [("b1", "r1"), ("b2", "r2")])
def test_the_same_life_or_another_redis_proves_nothing(boot, run_id):
    found = inherit(NOTE, boot, run_id, "t", 10)
    assert found.lives == 2
    assert found.ranges == (Noted(10, 20, 1), Noted(20, 30, 3, 1))


def test_progress_and_another_topic_begin_anew():
    assert inherit(NOTE, "b2", "r1", "t", 20).ranges == (Noted(20, 30, 3, 2, killed=True),)
    assert inherit(NOTE, "b2", "r1", "t", 20).lives == 0
    assert inherit(NOTE, "b2", "r1", "other", 10) == Note("b2", "r1", "other", 10)
    assert inherit(None, "b2", "r1", "t", 10) == Note("b2", "r1", "t", 10)


def test_cuts_keep_to_ranges():
    ranges = (Noted(10, 20, 1), Noted(30, 40, 2))
    assert of_offset(ranges, 5) == (None, 10)
    assert of_offset(ranges, 15) == (ranges[0], 20)
    assert of_offset(ranges, 20) == (None, 30)
    assert of_offset(ranges, 40) == (None, None)
    assert without(ranges, 15) == (Noted(15, 20, 1), ranges[1])
    assert without(ranges, 20) == (ranges[1],)
