"""What dies, raises or hangs costs only itself, and what it had is replayed exactly."""

import os
import signal
from collections import Counter

import pytest

from localstorm.testing import crash, fail_next, lose_ack, run_topology

pytestmark = pytest.mark.embedded

CHAIN = """
    numbers = Numbers.spec()
    first = Echo.spec(inputs=[numbers])
    last = Echo.spec(inputs=[first])
"""
ONE_BY_ONE = {"topology.max.spout.pending": 1}


def test_work_done_and_the_ack_lost_is_replayed(make_project):
    project = make_project(CHAIN)
    result = run_topology(project, options=ONE_BY_ONE, faults=[crash("first", after=3)], capture=["last"])
    assert result.failed("numbers") == ["2"]
    assert result.replayed("numbers") == {"2": 1}
    assert result.restarts("first") == 1
    # It had emitted before it died: the last bolt sees that tuple twice.
    assert [n for n, _ in result.values("last")] == [0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9]
    assert sorted(map(int, result.acked("numbers"))) == list(range(10))


def test_a_crash_as_the_tuple_arrives_fails_what_the_process_had(make_project):
    project = make_project(CHAIN)
    result = run_topology(project, options=ONE_BY_ONE, faults=[crash("last", after=3, at="receive")])
    assert result.failed("numbers") == ["2"]
    assert sorted(map(int, result.acked("numbers"))) == list(range(10))
    assert result.restarts("last") == 1
    assert any("killed" in text or "scripted crash" in text for _, text in result.messages)


def test_repeated_crashes_under_load_lose_nothing(make_project):
    project = make_project("""
        numbers = Numbers.spec()
        first = Echo.spec(inputs=[numbers], par=2)
        last = Echo.spec(inputs={first: Grouping.fields("n")}, par=2)
    """)
    faults = [
        crash("first", after=100),
        crash("last", after=200, at="receive"),
        crash("first", after=400, at="receive"),
        fail_next("last", 5, after=600),
    ]
    options = {"limit": 1000, "topology.max.spout.pending": 50}
    result = run_topology(project, options=options, faults=faults, capture=["last"])
    assert {n for n, _ in result.values("last")} == set(range(1000))
    assert sorted(map(int, result.acked("numbers"))) == list(range(1000))
    assert result.restarts("first") + result.restarts("last") == 3
    failed = result.failed("numbers")
    assert len(failed) >= 5 + 3
    assert result.replayed("numbers") == {key: failed.count(key) for key in failed}


def test_failed_tuples_are_replayed(make_project):
    result = run_topology(make_project(CHAIN), options=ONE_BY_ONE, faults=[fail_next("last", 2, after=4)])
    assert result.failed("numbers") == ["4", "4"]
    assert result.replayed("numbers") == {"4": 2}
    assert result.stats.component("last").failed == 2


def test_a_lost_ack_fails_by_the_message_timeout(make_project):
    options = {**ONE_BY_ONE, "topology.message.timeout.secs": 0.5}
    result = run_topology(make_project(CHAIN), options=options, faults=[lose_ack("last", after=5)])
    assert ("5", "timeout") in result.outcomes["numbers"]
    # On a slow machine others are late as well.
    assert result.replayed("numbers") == Counter(result.failed("numbers"))
    assert set(result.acked("numbers")) == {str(n) for n in range(10)}


def test_a_dead_spout_is_restarted_alone(make_project):
    project = make_project(CHAIN)

    killed = []

    def done(snapshot):
        spout = snapshot.component("numbers")
        if spout.acked >= 10 and not killed:
            killed.append(next(task.pid for task in snapshot.tasks if task.component == "numbers"))
            os.kill(killed[0], signal.SIGKILL)
        return spout.restarts == 1 and spout.acked >= 20

    result = run_topology(project, until=done)
    assert result.restarts("first") == result.restarts("last") == 0
    assert result.spout_emits["numbers"] == [str(n) for n in range(10)] * 2


def test_an_exception_shows_its_traceback_and_is_replayed(make_project, tmp_path):
    project = make_project("""
        numbers = Numbers.spec()
        raises = Raises.spec(inputs=[numbers])
    """)
    result = run_topology(project, options={**ONE_BY_ONE, "mark": str(tmp_path / "mark")}, capture=["raises"])
    died = [text for level, text in result.messages if " died (" in text]
    assert len(died) == 1
    assert "exit code 1" in died[0]
    assert "ValueError: three is too many" in died[0]
    assert "restarting in 0.1 s" in died[0]
    assert "Traceback" in (project / "logs" / "zoo-raises-3.log").read_text()
    # Perhaps twice: the replay may reach the process while it is on its way out.
    assert set(result.replayed("numbers")) == {"3"}
    assert result.values("raises") == [[n] for n in range(10)]


def test_an_exception_that_does_not_exit_fails_the_tuple_only(make_project, tmp_path):
    project = make_project("""
        numbers = Numbers.spec()
        raises = RaisesOn.spec(inputs=[numbers])
    """)
    result = run_topology(project, options={**ONE_BY_ONE, "mark": str(tmp_path / "mark")}, quiet=1.0)
    assert result.restarts("raises") == 0
    assert result.failed("numbers") == ["3"]
    assert any("ValueError: three is too many" in text for level, text in result.messages)


def test_a_hanging_process_is_replaced(make_project, tmp_path):
    project = make_project("""
        numbers = Numbers.spec()
        silent = Silent.spec(inputs=[numbers])
    """)
    options = {**ONE_BY_ONE, "mark": str(tmp_path / "mark"), "topology.subprocess.timeout.secs": 3}
    result = run_topology(project, options=options)
    assert any("silent for 3 s" in text for _, text in result.messages)
    assert result.replayed("numbers") == {"3": 1}
    assert len(result.acked("numbers")) == 10


def test_a_crash_loop_backs_off_shows_stderr_and_never_ends_the_runner(make_project):
    project = make_project("""
        numbers = Numbers.spec()
        dies = AlwaysDies.spec(inputs=[numbers])
    """)

    def done(snapshot):
        return snapshot.component("dies").restarts >= 3 and snapshot.component("numbers").pending == 10

    result = run_topology(project, until=done, drain=0.1)
    died = [text for _, text in result.messages if " died (" in text]
    assert [text.split("restarting in ")[1].split(" s")[0] for text in died[:3]] == ["0.1", "0.2", "0.4"]
    assert "exit code 7" in died[0]
    assert "cannot start" in died[0]
    assert any("left un-acked: 10 spout tuples" in text for _, text in result.messages)


def test_a_tuple_failed_and_acked_counts_once_and_is_told(make_project, tmp_path):
    project = make_project("""
        numbers = Numbers.spec()
        twice = Twice.spec(inputs=[numbers])
    """)
    result = run_topology(project, options={**ONE_BY_ONE, "mark": str(tmp_path / "mark")})
    assert result.failed("numbers") == ["2"]
    assert len(result.acked("numbers")) == 10
    assert any("already acked or failed" in text for _, text in result.messages)


def test_an_undeclared_stream_is_named(make_project):
    project = make_project("""
        undeclared = Undeclared.spec()
        echo = Echo.spec(inputs=[undeclared])
    """)
    result = run_topology(project, until=lambda snapshot: snapshot.component("undeclared").restarts >= 1)
    assert any(
        "stream 'elsewhere', which it does not declare (it has: default)" in t for _, t in result.messages
    )
