"""The acker against Storm's own bookkeeping (XOR of random edge ids), over random trees in any order."""

import random
from functools import reduce
from operator import xor

from hypothesis import given, settings
from hypothesis import strategies as st

from localstorm.acker import Acker, merge

# Little time, and none measured: other tests run beside this one.
few = settings(max_examples=40, deadline=None)


class Heard:
    def __init__(self):
        self.reports = []

    def __call__(self, tree, outcome, now):
        self.reports.append((tree.message_id, outcome))


@few
@given(seed=st.integers(0, 2**32), spouts=st.integers(1, 4), growth=st.integers(0, 40), data=st.data())
def test_a_tree_completes_exactly_when_storms_xor_is_zero(seed, spouts, growth, data):
    rng = random.Random(seed)
    heard = Heard()
    acker = Acker(30, heard)
    sums: dict[bytes, int] = {}
    edges = []  # (trees, {message id: edge id in Storm's books})

    def new_edges(trees, ids, number):
        for _ in range(number):
            books = {key: rng.getrandbits(64) for key in ids}
            for key, edge in books.items():
                sums[key] ^= edge
            edges.append((trees, books))

    for number in range(spouts):
        key = b"%d" % number
        sums[key] = 0
        fan = data.draw(st.integers(1, 3))
        new_edges(acker.open("spout", key, fan, 0), [key], fan)
    while edges:
        at = rng.randrange(len(edges))
        if growth and rng.random() < 0.5:
            # A bolt emits, anchored to this edge and perhaps to another it holds.
            growth -= 1
            anchors = {at, rng.randrange(len(edges))}
            trees = merge(edges[index][0] for index in anchors)
            ids = {key for index in anchors for key in edges[index][1]}
            fan = rng.randrange(3)
            acker.grow(trees, fan)
            new_edges(trees, ids, fan)
            continue
        trees, books = edges.pop(at)
        for key, edge in books.items():
            sums[key] ^= edge
        acker.ack(trees, 1)
        still = {key for _, others in edges for key in others}
        complete = {key for key, _ in heard.reports}
        assert complete == set(sums) - still
        assert all(sums[key] == 0 for key in complete)
    assert sorted(heard.reports) == sorted((key, "ack") for key in sums)
    assert reduce(xor, sums.values()) == 0
    assert len(acker) == 0


@few
@given(acks=st.permutations(range(6)), failing=st.integers(0, 5))
def test_one_failed_edge_fails_the_tree_once_and_late_acks_do_nothing(acks, failing):
    heard = Heard()
    acker = Acker(30, heard)
    trees = acker.open("spout", b"7", 6, 0)
    for number in acks:
        if number == failing:
            acker.fail(trees, 1)
        else:
            acker.ack(trees, 1)
    acker.fail(trees, 2)
    acker.ack(trees, 2)
    assert heard.reports == [(b"7", "fail")]


def test_a_tuple_nobody_hears_is_acked_at_once():
    heard = Heard()
    Acker(30, heard).open("spout", b"1", 0, 0)
    assert heard.reports == [(b"1", "ack")]


def test_trees_time_out_by_age_and_only_once():
    heard = Heard()
    acker = Acker(30, heard)
    acker.open("spout", b"old", 1, 0)
    young = acker.open("spout", b"young", 1, 10)
    acker.expire(29.9)
    assert heard.reports == []
    acker.expire(30)
    assert heard.reports == [(b"old", "timeout")]
    acker.ack(young, 31)
    acker.expire(100)
    assert heard.reports == [(b"old", "timeout"), (b"young", "ack")]


def test_the_trees_of_a_dead_spout_are_dropped_in_silence():
    heard = Heard()
    acker = Acker(30, heard)
    gone, other = object(), object()
    trees = acker.open(gone, b"1", 1, 0)
    acker.open(other, b"2", 1, 0)
    assert acker.forget(gone) == 1
    acker.ack(trees, 1)
    assert heard.reports == []
    assert len(acker) == 1
