"""Where a shard is, by what each DSN says of itself."""

from __future__ import annotations

from clicktide.sql.placement import Entry, Placement


def test_a_shard_is_at_home_unless_its_home_says_otherwise():
    p = Placement(2)
    assert [p.owner(s) for s in range(4)] == [0, 1, 0, 1]
    p.learn(0, 2, {2: Entry("moved", 1)})
    assert [p.owner(s) for s in range(4)] == [0, 1, 1, 1]
    assert not p.accepts(0, 2, copy=False)


def test_a_shard_is_followed_over_all_its_moves_and_back():
    p = Placement(3)
    p.learn(0, 2, {0: Entry("moved", 1)})
    p.learn(1, 2, {0: Entry("moved", 2)})
    assert p.owner(0) == 2
    p.learn(2, 3, {0: Entry("moved", 0)})
    p.learn(0, 3, {0: Entry("active", 2)})
    assert p.owner(0) == 0


def test_stale_maps_that_point_in_a_circle_end():
    p = Placement(2)
    p.learn(0, 1, {0: Entry("moved", 1)})
    p.learn(1, 1, {0: Entry("moved", 0)})
    assert p.owner(0) in (0, 1)
    assert (p.next(0, 0), p.next(1, 0), p.next(1, 2)) == (1, 0, 0)


def test_while_it_moves_a_shard_is_written_at_both_and_read_at_the_old():
    p = Placement(2)
    p.learn(0, 2, {0: Entry("moving", 1)})
    p.learn(1, 2, {0: Entry("incoming", 0)})
    assert p.owner(0) == 0
    assert p.accepts(0, 0, copy=False)
    assert p.targets(0, {0, 2}) == {1: {0}}
    assert not p.accepts(1, 0, copy=False)
    assert p.accepts(1, 0, copy=True)
    assert not p.accepts(1, 2, copy=True)
