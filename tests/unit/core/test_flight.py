"""Flights: commits follow the acks in order, and only after the delay."""

from __future__ import annotations

from clicktide.flight import Entry, Flights


def flights(*nexts: int, start: int = 0) -> tuple[Flights, list[Entry]]:
    made = Flights(start)
    entries = [Entry(None, n, 100 + n) for n in nexts]
    for entry in entries:
        made.started(entry)
    return made, entries


def test_nothing_started_nothing_committed():
    assert Flights(7).committable(1e9) is None
    assert (Flights(7).position, Flights(7).done) == (7, 7)


def test_only_leading_acks_count():
    made, (a, b, c) = flights(10, 20, 30)
    made.acked(c, 1.0)
    made.acked(b, 1.0)
    assert (made.committable(2.0), made.done) == (None, 0)
    made.acked(a, 1.0)
    assert (made.done, made.done_timestamp) == (30, 130)
    assert made.committable(2.0) == 30
    assert made.committable(2.0) is None, "only when it moves"


def test_each_ack_waits_its_own_time():
    made, (a, b) = flights(10, 20)
    made.acked(b, 1.0)
    made.acked(a, 3.0)
    assert made.committable(2.9) is None
    assert made.committable(3.0) == 20


def test_a_later_ack_holds_up_what_follows_it():
    made, (a, b) = flights(10, 20)
    made.acked(a, 1.0)
    made.acked(b, 5.0)
    assert made.committable(2.0) == 10
    assert made.committable(4.9) is None
    assert made.committable(5.0) == 20


def test_the_parts_of_a_halved_slice_stand_in_its_place():
    made, (a, b, c) = flights(10, 20, 30)
    left, right = Entry(None, 15, 115), Entry(None, 20, 120)
    made.split(b, [left, right])
    for entry in (a, right, c):
        made.acked(entry, 1.0)
    assert made.committable(1.0) == 10
    made.acked(left, 1.0)
    assert made.committable(1.0) == 30
