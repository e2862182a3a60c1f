"""Lag: where the group stands, by what is published, committed and kept."""

import pytest

from clicktide.log.port import Record, TopicInfo, TopicPartition
from clicktide.read.lag import due, lag_seconds, standings

FIRST = TopicPartition("t", 0)


class Admin:
    def __init__(self, bounds, committed):
        self._bounds, self._committed = bounds, committed

    def topics(self):
        return {"t": TopicInfo("t", "0" * 32, 1)}

    def bounds(self, partitions):
        return dict.fromkeys(partitions, self._bounds)

    def committed(self, group, partitions):
        return {} if self._committed is None else dict.fromkeys(partitions, self._committed)


class Consumer:
    def fetch(self, partition, offsets, timeout_s):
        headers = (("tide-not-before", b"700"),)
        return {o: Record(partition.topic, partition.partition, o, 400, None, b"v", headers) for o in offsets}


def stand(bounds, done, committed):
    found = standings(Admin(bounds, committed), Consumer(), "g", ["t", "missing"], done, 1.0)
    assert list(found) == ["t"]
    return found["t"][0]


@pytest.mark.parametrize(
    ("bounds", "done", "committed", "position"),
    [
        ((0, 10), {}, None, 0),
        ((0, 10), {FIRST: 7}, 5, 7),
        ((0, 10), {}, 5, 5),
        ((6, 10), {FIRST: 3}, 2, 6),
        # The topic was made anew: its former self's positions lie beyond its end.
        ((0, 10), {FIRST: 500}, 4, 4),
        ((0, 10), {FIRST: 10}, 4, 10),
    ],
)
def test_the_position_is_the_furthest_that_can_be_true(bounds, done, committed, position):
    found = stand(bounds, done, committed)
    assert (found.done, found.records) == (position, 10 - position)


def test_the_age_and_due_time_are_those_of_the_first_that_waits():
    waiting, idle = stand((0, 10), {FIRST: 3}, None), stand((0, 10), {FIRST: 10}, None)
    assert lag_seconds(waiting, 2400) == 2.0
    assert lag_seconds(waiting, 100) == 0
    assert due(waiting) == 700
    assert lag_seconds(idle, 2400) == 0
    assert due(idle) is None
