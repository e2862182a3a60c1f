"""A source on every adapter of the log: where it starts, and partitions that are added while it reads."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from contract.log_adapters import ADAPTERS, WAIT_S, Case, open_case
from unit.core.making import Clock

from clicktide.log.port import Outgoing
from clicktide.seen import Seen
from clicktide.slices import Slice
from clicktide.source import Limits, Source

GROUP = "source"
GROWTH_S = 60.0  # clients look at the cluster anew every ten seconds


@pytest.fixture(params=ADAPTERS)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    yield from open_case(request.param, tmp_path)


class Watch:
    """Redis is there, and was just looked at."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def seen(self) -> Seen:
        return Seen("redis", self._clock())


def source_of(case: Case, topic: str, clock: Clock, start: str) -> Source:
    limits = Limits(10, 0.0, 100, 0.0, 3, start)
    return Source(
        case.consumer(GROUP),
        [topic],
        0,
        1,
        limits,
        Watch(clock),
        clock,
        lambda: 0.0,
        str(clock()),
        None,
        None,
    )


def values_until(source: Source, clock: Clock, enough: int, wait_s: float = WAIT_S) -> list[bytes]:
    """What comes, acked, until there is enough; then a moment more for what should not come."""
    found: list[bytes] = []
    deadline = time.monotonic() + wait_s
    extra = 3
    while extra:
        one: Slice | None = source.next(0.1)
        clock.pass_(1.1)
        if one is not None:
            found += one.values
            source.ack(one.id)
        elif len(found) >= enough:
            extra -= 1
        assert time.monotonic() < deadline, f"only {found}"
    return found


def test_a_start_at_a_moment_holds_only_where_nothing_is_committed(case: Case) -> None:
    topic, clock = case.topic(2), Clock()
    stamped = [
        Outgoing(topic, None, b"%d" % t, partition=p, timestamp=t) for t in (1000, 2000, 3000) for p in (0, 1)
    ]
    case.producer.send(stamped, WAIT_S)
    first = source_of(case, topic, clock, "2000")
    assert sorted(values_until(first, clock, 4)) == [b"2000", b"2000", b"3000", b"3000"]
    first.commit(force=True)
    again = source_of(case, topic, clock, "1000")
    case.write(topic, b"new", partition=1)
    assert values_until(again, clock, 1) == [b"new"]


def test_the_end_is_a_start_too(case: Case) -> None:
    topic, clock = case.topic(), Clock()
    case.write(topic, b"old")
    source = source_of(case, topic, clock, "latest")
    assert values_until(source, clock, 0) == []
    case.write(topic, b"new")
    # A new life: the start was written down, not chosen again.
    assert values_until(source_of(case, topic, clock, "latest"), clock, 1) == [b"new"]


def test_partitions_added_are_noticed(case: Case) -> None:
    topic, clock = case.topic(), Clock()
    source = source_of(case, topic, clock, "latest")
    values_until(source, clock, 0)
    case.write(topic, b"0")
    assert values_until(source, clock, 1) == [b"0"]
    case.admin.add_partitions(topic, 3)
    case.producer.send([Outgoing(topic, None, b"%d" % p, partition=p) for p in (1, 2)], WAIT_S)
    assert sorted(values_until(source, clock, 2, GROWTH_S)) == [b"1", b"2"]
