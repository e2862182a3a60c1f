"""Topologies run for real, in processes: who gets what, in which order, and what components are told."""

import json

import pytest

from localstorm.testing import run_topology

pytestmark = pytest.mark.embedded


def test_every_tuple_reaches_the_last_bolt_and_is_acked(make_project):
    project = make_project("""
        numbers = Numbers.spec()
        fan = Fan.spec(inputs=[numbers], par=2)
        echo = Echo.spec(inputs={fan: Grouping.fields("n")}, par=2)
    """)
    result = run_topology(project, options={"limit": 50}, capture=["fan", "echo"])
    assert sorted(values[0] for values in result.values("echo")) == list(range(150))
    assert sorted(map(int, result.acked("numbers"))) == list(range(50))
    assert result.failed("numbers") == []
    assert result.stats.component("echo").acked == 150
    where = {}
    for n, task in result.values("echo"):
        assert where.setdefault(n, task) == task
    assert len(set(where.values())) == 2


def test_groupings_choose_the_tasks_they_promise(make_project):
    project = make_project("""
        numbers = Numbers.spec()
        shuffled = Echo.spec(inputs=[numbers], par=3)
        local = Echo.spec(inputs={numbers: Grouping.LOCAL_OR_SHUFFLE}, par=2)
        none = Echo.spec(inputs={numbers: Grouping.NONE}, par=2)
        every = Echo.spec(inputs={numbers: Grouping.ALL}, par=2)
        one = Echo.spec(inputs={numbers: Grouping.GLOBAL}, par=2)
    """)
    names = ["shuffled", "local", "none", "every", "one"]
    result = run_topology(project, options={"limit": 12}, capture=names)
    got = {name: [task for _, task in result.values(name)] for name in names}
    assert sorted(got["shuffled"].count(task) for task in set(got["shuffled"])) == [4, 4, 4]
    assert sorted(got["local"].count(task) for task in set(got["local"])) == [6, 6]
    assert len(got["none"]) == 12
    assert len(got["every"]) == 24
    assert len(set(got["every"])) == 2
    assert len(got["one"]) == 12
    lowest = min(task.id for task in result.stats.tasks if task.component == "one")
    assert set(got["one"]) == {lowest}


def test_streams_and_task_ids_on_request(make_project):
    project = make_project("""
        kinds = Kinds.spec()
        even = Echo.spec(inputs={kinds["even"]: Grouping.fields("who")}, par=2)
        both = Echo.spec(inputs={kinds["even"]: Grouping.GLOBAL, kinds["odd"]: Grouping.SHUFFLE})
    """)
    result = run_topology(project, capture=["even", "both"])
    assert sorted(n for n, _ in result.values("even")) == [0, 2, 4, 6, 8]
    assert sorted(n for n, _ in result.values("both")) == list(range(10))
    both = next(task.id for task in result.stats.tasks if task.component == "both")
    told = [text.rpartition("tasks ")[2] for level, text in result.messages if "tasks " in text]
    assert len(told) == 10
    assert all(both in json.loads(ids) for ids in told)
    assert [len(json.loads(ids)) for ids in told] == [2, 1] * 5


def test_direct_streams(make_project):
    project = make_project("""
        directed = Directed.spec()
        echo = Echo.spec(inputs=[directed], par=3)
    """)
    result = run_topology(project, capture=["echo"])
    first = min(task for _, task in result.values("echo"))
    assert {n: task - first for n, task in result.values("echo")} == {n: n % 3 for n in range(9)}
    assert len(result.acked("directed")) == 9


def test_ticks_reach_the_bolts_that_want_them(make_project):
    project = make_project("""
        numbers = Numbers.spec()
        ticked = Ticked.spec(inputs=[numbers], config={"topology.tick.tuple.freq.secs": 1})
        plain = Ticked.spec(inputs=[numbers])
    """)
    result = run_topology(
        project, capture=["ticked", "plain"], until=lambda snapshot: snapshot.component("ticked").emitted >= 2
    )
    assert 2 <= len(result.values("ticked")) <= result.stats.uptime + 1
    assert result.values("ticked")[0] == [[1]]
    assert result.values("plain") == []
    assert not [text for level, text in result.messages if level == "WARNING"]


def test_batching_bolts_flush_by_ticks(make_project):
    project = make_project("""
        numbers = Numbers.spec()
        batches = Batches.spec(inputs=[numbers], config={"topology.tick.tuple.freq.secs": 0.2})
    """)
    result = run_topology(project, options={"limit": 30}, capture=["batches"])
    assert sum(size for (size,) in result.values("batches")) == 30
    assert len(result.acked("numbers")) == 30


def test_components_know_their_place_and_their_settings(make_project):
    project = make_project(
        """
        config = {"b": "topology", "c": "topology"}
        numbers = Numbers.spec()
        context = Context.spec(inputs={numbers: Grouping.fields("n")}, par={"here": 2}, config={"own": 1,
            "topology.tasks": 8})
        last = Echo.spec(inputs=[context])
        """,
        envs={"here": {"options": {"a": "env", "b": "env"}}},
    )
    result = run_topology(project, options={"limit": 1, "c": "command line"}, capture=["context"])
    conf, context = result.values("context")[0]
    assert [conf[key] for key in "abc"] == ["env", "topology", "command line"]
    assert conf["own"] == 1
    assert conf["topology.name"] == "zoo"
    assert context["componentid"] == "context"
    assert context["taskid"] in {2, 3}
    assert context["task->component"] == {
        "1": "__acker",
        "2": "context",
        "3": "context",
        "4": "last",
        "5": "numbers",
    }
    assert context["source->stream->fields"] == {"numbers": {"default": ["n"]}}
    assert context["source->stream->grouping"] == {
        "numbers": {"default": {"type": "FIELDS", "fields": ["n"]}}
    }
    assert context["stream->target->grouping"] == {"default": {"last": {"type": "SHUFFLE"}}}


def test_spouts_are_activated_and_deactivated(make_project):
    project = make_project("""
        lifecycle = Lifecycle.spec()
        echo = Echo.spec(inputs=[lifecycle])
    """)
    result = run_topology(project)
    said = [text.split()[-1] for level, text in result.messages if level == "WARNING"]
    assert said == ["activated", "deactivated"]


def test_pending_tuples_never_exceed_the_limit(make_project):
    project = make_project("""
        numbers = Numbers.spec()
        slow = Slow.spec(inputs=[numbers])
    """)
    seen = []

    def done(snapshot):
        seen.append(snapshot.component("numbers").pending)
        return snapshot.component("slow").acked >= 150

    options = {"limit": 1000, "topology.max.spout.pending": 7}
    result = run_topology(project, options=options, until=done)
    assert max(seen) <= 7
    assert result.stats.component("slow").acked >= 150


def test_a_slow_bolt_holds_the_spout_back_instead_of_filling_memory(make_project):
    project = make_project("""
        flood = Flood.spec()
        slow = Slow.spec(inputs=[flood])
    """)
    most = []

    def done(snapshot):
        most.append(snapshot.component("slow").queued)
        return snapshot.component("slow").acked >= 300

    options = {"topology.shellbolt.max.pending": 20, "topology.message.timeout.secs": 120, "limit": 300}
    result = run_topology(project, options=options, until=done)
    assert max(most) < 20 + 10 * 17  # asked up to 16 times ahead, ten tuples each
    assert len(result.acked("flood")) == 300


def test_a_bolt_that_multiplies_cannot_flood_the_next(make_project):
    project = make_project("""
        numbers = Numbers.spec()
        multiplies = Multiplies.spec(inputs=[numbers])
        slow = Slow.spec(inputs=[multiplies])
    """)
    most = []

    def done(snapshot):
        most.append(snapshot.component("slow").queued)
        return snapshot.component("slow").acked >= 5000

    options = {"limit": 5, "topology.shellbolt.max.pending": 20, "nap": 0.0002}
    result = run_topology(project, options=options, until=done)
    assert len(result.acked("numbers")) == 5
    # Flooded at ten times 20, plus what one read of 1 MiB and the pipe hold.
    assert 20 < max(most) < 200 + 2 * 220


def test_a_ring_of_bolts_does_not_lock_up(make_project):
    project = make_project("""
        numbers = Numbers.spec()
        there = Rounds.spec(inputs={numbers: Grouping.SHUFFLE,
            GlobalStreamId(componentId="back", streamId="default"): Grouping.SHUFFLE})
        back = Rounds.spec(inputs=[there])
    """)
    result = run_topology(project, options={"limit": 4, "topology.shellbolt.max.pending": 2})
    assert len(result.acked("numbers")) == 4
    assert result.stats.component("there").acked > 1000


def test_no_ackers_acks_at_once(make_project):
    project = make_project("""
        numbers = Numbers.spec()
        slow = Slow.spec(inputs=[numbers])
    """)
    result = run_topology(project, options={"topology.acker.executors": 0})
    assert result.stats.component("numbers").acked == 10
    assert result.outcomes["numbers"] == []
