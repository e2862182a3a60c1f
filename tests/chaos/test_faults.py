"""The hand that does the faults: on processes and files that these tests make themselves."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.chaos.faults import Hand
from bench.chaos.plan import (
    AWAY,
    CUT,
    FAILOVER,
    FULL,
    HOLE,
    KILL,
    LOCK,
    LOSE,
    REBALANCE,
    SKEW,
    SLOW,
    STOP,
    Fault,
)
from bench.chaos.report import Outcome, table


class Place:
    """Processes and files by name."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.here, self.cut = folder, {}, []
        self.aof_there = True
        self.done: list[tuple] = []
        self.disks: dict[str, Disk] = {}
        self.in_step = self.nimbus_there = True

    def pids(self, target):
        return self.here.get(target, [])

    def lock_file(self, target):
        return self.folder / target

    def aof(self):
        return (self.folder / "aof", 7) if self.aof_there else None

    def lose(self, mark):
        self.cut.append(mark)
        return 42

    def turn_link(self, target, mode):
        self.done.append((target, mode))

    def disk(self, target):
        return self.disks.get(target)

    def skew(self, target, seconds):
        self.done.append((target, seconds))

    def rebalance(self, target, executors):
        self.done.append((target, executors))
        return self.nimbus_there

    def part_replica(self):
        self.done.append(("part",))
        return self.in_step

    def fail_over(self):
        self.done.append(("switch",))
        return self.in_step

    def hold_down(self, target, *, down):
        self.done.append((target, down))

    def settle(self):
        self.done.append(("settle",))


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.fixture
def sleeper():
    with subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"]) as process:
        yield process
        with contextlib.suppress(ProcessLookupError):
            process.kill()


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def wait_for(met) -> None:
    deadline = time.monotonic() + 10
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def hand(place, *faults):
    said: list[str] = []
    return Hand(place, faults, said.append), said


@pytest.mark.embedded
def test_kill_ends_at_its_time(place, sleeper):
    place.here["x"] = [sleeper.pid]
    h, said = hand(place, Fault(1.0, KILL, "x", 0.0))
    h.tick(0.9)
    assert sleeper.poll() is None
    h.tick(1.0)
    assert sleeper.wait(10) == -signal.SIGKILL
    assert h.done == {KILL: 1}
    assert said == ["   1.0 s  kill x"]
    assert not h.busy()


@pytest.mark.embedded
def test_stopped_until_its_time_is_over(place, sleeper):
    place.here["x"] = [sleeper.pid]
    h, _ = hand(place, Fault(1.0, STOP, "x", 2.0))
    h.tick(1.0)
    wait_for(lambda: state(sleeper.pid) == "T")
    h.tick(2.9)
    assert h.busy()
    assert state(sleeper.pid) == "T"
    h.tick(3.0)
    wait_for(lambda: state(sleeper.pid) != "T")
    assert not h.busy()


@pytest.mark.embedded
def test_slow_is_stopped_and_goes_in_turns(place, sleeper):
    place.here["x"] = [sleeper.pid]
    h, _ = hand(place, Fault(0.0, SLOW, "x", 5.0))
    seen = []
    for now in (0.0, 0.5, 1.0, 1.5):
        h.tick(now)
        wanted = "T" if len(seen) % 2 == 0 else "S"
        wait_for(lambda wanted=wanted: state(sleeper.pid) in {wanted, "R" if wanted == "S" else wanted})
        seen.append(state(sleeper.pid) == "T")
    assert seen == [True, False, True, False]


@pytest.mark.embedded
def test_heal_lets_everything_go(place, sleeper):
    place.here["x"] = [sleeper.pid]
    h, _ = hand(place, Fault(0.0, STOP, "x", 99.0), Fault(50.0, KILL, "x", 0.0))
    h.tick(0.0)
    wait_for(lambda: state(sleeper.pid) == "T")
    h.heal()
    wait_for(lambda: state(sleeper.pid) != "T")
    assert not h.busy()
    h.tick(60.0)
    assert sleeper.poll() is None


def test_a_target_that_is_down_is_waited_for_and_then_missed(place):
    h, said = hand(place, Fault(1.0, KILL, "x", 0.0))
    h.tick(1.0)
    assert h.busy()
    h.tick(4.1)
    assert not h.busy()
    assert h.missed == [Fault(1.0, KILL, "x", 0.0)]
    assert not h.done
    assert said == ["   1.0 s  kill x: missed, it was down, locked or cannot be done here"]


def test_a_lock_keeps_writers_out_for_its_time(place, tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "f", isolation_level=None, timeout=0)) as other:
        other.execute("PRAGMA journal_mode=WAL")
        other.execute("CREATE TABLE t (x)")
        h, _ = hand(place, Fault(1.0, LOCK, "f", 2.0))
        h.tick(1.0)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("INSERT INTO t VALUES (1)")
        h.tick(3.0)
        other.execute("INSERT INTO t VALUES (1)")


def test_a_lock_that_another_holds_is_tried_again(place, tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "f", isolation_level=None, timeout=0)) as other:
        other.execute("CREATE TABLE t (x)")
        other.execute("BEGIN IMMEDIATE")
        h, _ = hand(place, Fault(1.0, LOCK, "f", 2.0))
        h.tick(1.0)
        assert not h.done
        other.execute("ROLLBACK")
        h.tick(1.2)
        assert h.done == {LOCK: 1}
        h.heal()


def test_a_loss_marks_first_and_cuts_its_length_later(place, tmp_path):
    h, said = hand(place, Fault(1.0, LOSE, "redis", 0.8))
    h.tick(1.0)
    assert place.cut == []
    h.tick(1.7)
    assert place.cut == []
    h.tick(1.85)
    assert place.cut == [(tmp_path / "aof", 7)]
    assert h.done == {LOSE: 1}
    assert said == ["   1.0 s  lose redis 0.8 s (42 bytes)"]
    assert not h.busy()


def test_a_link_is_opened_again_when_its_time_is_over(place):
    h, said = hand(place, Fault(1.0, HOLE, "kafka", 2.0), Fault(1.5, CUT, "redis", 9.0))
    h.tick(1.0)
    h.tick(2.9)
    assert place.done == [("kafka", "hole"), ("redis", "cut")]
    h.tick(3.0)
    assert place.done[2:] == [("kafka", "open")]
    h.heal()
    assert place.done[3:] == [("settle",), ("redis", "open")]
    assert said == ["   1.0 s  hole kafka 2.0 s", "   1.5 s  cut redis 9.0 s"]


@pytest.mark.embedded
def test_a_server_is_away_until_its_time_is_over(place, sleeper):
    place.here["mariadb-1"] = [sleeper.pid]
    h, _ = hand(place, Fault(1.0, AWAY, "mariadb-1", 4.0))
    h.tick(1.0)
    assert sleeper.wait(10) == -signal.SIGKILL
    h.tick(4.9)
    assert place.done == [("mariadb-1", True)]
    h.tick(5.0)
    assert place.done == [("mariadb-1", True), ("mariadb-1", False)]


def test_a_clock_is_right_again_when_its_time_is_over(place):
    h, said = hand(place, Fault(1.0, SKEW, "events.parse", 4.0, -300.0))
    h.tick(1.0)
    h.tick(5.0)
    assert place.done == [("events.parse", -300.0), ("events.parse", 0.0)]
    assert said == ["   1.0 s  skew events.parse by -300 s for 4.0 s"]


class Disk:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def fill(self) -> None:
        self.calls.append("fill")

    def empty(self) -> None:
        self.calls.append("empty")


def test_a_disk_is_full_to_the_last_byte_and_empty_again(place):
    disk = place.disks["log"] = Disk()
    h, _ = hand(place, Fault(1.0, FULL, "log", 2.0))
    for now in (1.0, 2.0, 3.0):
        h.tick(now)
    assert disk.calls == ["fill", "fill", "empty"]


def test_a_disk_that_cannot_be_had_is_missed(place):
    h, said = hand(place, Fault(1.0, FULL, "log", 2.0))
    h.tick(1.0)
    h.tick(4.1)
    assert h.missed
    assert "missed" in said[0]
    assert not h.busy()


def test_a_failover_parts_first_and_switches_later(place):
    h, _ = hand(place, Fault(1.0, FAILOVER, "redis", 0.8))
    h.tick(1.0)
    h.tick(1.7)
    assert place.done == [("part",)]
    h.tick(1.85)
    assert place.done == [("part",), ("switch",)]
    assert h.done == {FAILOVER: 1}


def test_a_failover_waits_for_a_replica_in_step(place):
    place.in_step = False
    h, _ = hand(place, Fault(1.0, FAILOVER, "redis", 0.8))
    h.tick(1.0)
    place.in_step = True
    h.tick(1.2)
    h.tick(2.0)
    assert place.done == [("part",), ("part",), ("switch",)]


def test_a_failover_that_never_came_is_undone(place):
    h, _ = hand(place, Fault(1.0, FAILOVER, "redis", 0.8))
    h.tick(1.0)
    h.heal()
    assert place.done[-1] == ("settle",)
    h.tick(9.0)
    assert ("switch",) not in place.done


def test_a_rebalance_is_ordered_until_it_is_taken(place):
    place.nimbus_there = False
    h, _ = hand(place, Fault(1.0, REBALANCE, "events.parse", 0.0, 2.0))
    h.tick(1.0)
    assert h.busy()
    place.nimbus_there = True
    h.tick(1.1)
    assert place.done == [("events.parse", 2), ("events.parse", 2)]
    assert h.done == {REBALANCE: 1}


def test_a_run_passes_only_if_all_is_well():
    def outcome(**but):
        found = Outcome("embedded", 1, 40.0, {KILL: 2}, recovery_s=3.0, ledgers={"all": True})
        for name, value in but.items():
            setattr(found, name, value)
        return found

    assert outcome().passed
    assert not outcome(ledgers={"all": True, "file": False}).passed
    assert not outcome(ledgers={}).passed
    assert not outcome(recovery_s=None).passed
    assert not outcome(problems=["x"]).passed
    assert "| kill 2 |" in table([outcome()])
    assert "FAILED" in table([outcome(problems=["x"])])
