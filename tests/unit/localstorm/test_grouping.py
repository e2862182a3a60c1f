"""Which task a tuple goes to."""

from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localstorm.errors import ProtocolError
from localstorm.grouping import chooser

# Little time, and none measured: other tests run beside this one.
few = settings(max_examples=40, deadline=None)


@few
@given(tasks=st.integers(1, 9), start=st.integers(0, 2**32), rounds=st.integers(1, 5))
@pytest.mark.parametrize("kind", ["shuffle", "none", "local_or_shuffle"])
def test_shuffling_gives_every_task_the_same_share(kind, tasks, start, rounds):
    choose = chooser(kind, tasks, (), start)
    counts = Counter(index for _ in range(tasks * rounds) for index in choose(b"[]"))
    assert counts == dict.fromkeys(range(tasks), rounds)


@few
@given(
    key=st.text() | st.integers(-(2**53), 2**53) | st.none() | st.lists(st.text()), tasks=st.integers(1, 9)
)
def test_equal_values_meet_however_they_are_written(key, tasks):
    choose = chooser("fields", tasks, (1,))
    plain = msgspec.json.encode([0, key, "z"])
    spaced = msgspec.json.format(msgspec.json.encode([9, key]), indent=2)
    assert list(choose(plain)) == list(choose(spaced))


def test_an_escaped_letter_is_the_letter():
    choose = chooser("fields", 64, (0,))
    assert choose('["é"]'.encode()) == choose(b'["\\u00e9"]')


def test_keys_spread_over_the_tasks():
    choose = chooser("fields", 4, (0,))
    counts = Counter(index for n in range(4000) for index in choose(b'["u%d"]' % n))
    assert min(counts.values()) > 800


def test_all_and_global():
    assert list(chooser("all", 3)(b"[]")) == [0, 1, 2]
    assert list(chooser("global", 3)(b"[]")) == [0]
    assert chooser("direct", 3) is None


def test_too_few_values_for_the_grouping():
    with pytest.raises(ProtocolError, match="emitted 1 values on a stream grouped by field 3"):
        chooser("fields", 2, (2,))(b"[1]")
