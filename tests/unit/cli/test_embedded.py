"""The embedded services' small parts: the hold, the record, the relay, the progress, what processes are told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from cli import local
from cli.demo import Traffic, forget_old_truths
from clicktide import turns
from clicktide.log.port import TopicInfo
from clicktide.settings import Settings
from deploy import priority
from deploy.embedded import plan, record, redis
from deploy.embedded.child import FIRST_PAUSE_S, LONGEST_PAUSE_S, STEADY_S, Child, keep_small
from deploy.embedded.errors import EmbeddedError
from deploy.embedded.hold import held, prepare_folders
from deploy.embedded.places import Places, private_socket
from deploy.embedded.progress import Position, parse_published, positions
from deploy.embedded.relay import BURST, EVERY_S, Relay
from deploy.priority import give_way


def child(log: Path) -> Child:
    return Child("made", ["true"], log, {}, lambda: True)


# -- processes


def test_a_process_that_is_to_give_way_does(tmp_path):
    log = tmp_path / "log"
    made = Child(
        "made", [sys.executable, "-c", "import os; print(os.nice(0))"], log, {}, lambda: True, nice=3
    )
    made.start(0.0)
    assert made.process is not None
    made.process.wait(20)
    assert int(log.read_text()) == os.nice(0) + 3


@pytest.mark.parametrize(("pid", "named"), [(0, "self"), (4711, "4711")])
def test_its_session_gives_way_as_well_once_the_kernel_takes_it(monkeypatch, pid, named):
    told, given = [], []

    class Busy:
        def __init__(self, path=()):
            self.path = path

        def __truediv__(self, name):
            return Busy((*self.path, name))

        def write_text(self, text):
            told.append((*self.path, text))
            if len(told) < 3:
                raise BlockingIOError

    monkeypatch.setattr(priority, "_PROCESSES", Busy())
    monkeypatch.setattr(priority.time, "sleep", lambda _: None)
    monkeypatch.setattr(os, "getpriority", lambda *_: 2)
    monkeypatch.setattr(os, "setpriority", lambda *what: given.append(what))
    give_way(3, pid)
    assert told == [(named, "autogroup", "3\n")] * 3
    assert given == [(os.PRIO_PROCESS, pid, 5)]


def test_a_kernel_without_sessions_shares_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr(priority, "_PROCESSES", tmp_path / "none")
    monkeypatch.setattr(os, "setpriority", lambda *_: None)
    give_way(3)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own")
@pytest.mark.parametrize("short", [False, True])
def test_a_process_that_answers_gets_short_turns(tmp_path, monkeypatch, short):
    asked = tmp_path / "asked"  # by the child, between fork and exec
    monkeypatch.setattr(turns, "short", asked.touch)
    made = Child("made", ["true"], tmp_path / "log", {}, lambda: True, short_turns=short)
    made.start(0.0)
    assert made.process is not None
    made.process.wait(20)
    assert asked.exists() == short


# -- the data directory


def test_a_second_hold_is_refused_with_the_pid_of_the_first(tmp_path):
    with (
        held(tmp_path / "lock"),
        pytest.raises(EmbeddedError, match=f"pid {os.getpid()}"),
        held(tmp_path / "lock"),
    ):
        pass


def test_a_hold_can_be_had_again_after_its_end(tmp_path):
    for _ in range(2):
        with held(tmp_path / "lock"):
            pass


def test_a_data_directory_that_is_a_file_is_named(tmp_path):
    (tmp_path / "d").write_text("")
    with pytest.raises(EmbeddedError, match="is a file; expected a folder"):
        prepare_folders(Places(tmp_path / "d"))


def test_a_data_directory_below_a_file_is_named(tmp_path):
    (tmp_path / "d").write_text("")
    with pytest.raises(EmbeddedError, match="lies below a file"):
        prepare_folders(Places(tmp_path / "d" / "e"))


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("deploy.embedded.hold.free_mb", lambda _: 3)
    with pytest.raises(EmbeddedError, match="has 3 MB left"):
        prepare_folders(Places(tmp_path))


def test_a_foreign_folder_for_the_socket_is_refused(tmp_path):
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(Exception, match="not a private folder"):
        private_socket(tmp_path / "open" / "redis.sock")


# -- the record


def test_this_process_is_alive_and_a_former_one_of_its_pid_is_not():
    me = record.identity(os.getpid())
    assert record.alive(me)
    assert not record.alive({**me, "started": "1"})
    assert not record.alive({"pid": os.getpid(), "started": ""})


def test_a_foreign_process_with_a_recorded_pid_is_left_alone(tmp_path):
    record.write(tmp_path / "run.json", {"children": {"redis": {"pid": os.getpid(), "started": "1"}}})
    assert record.end_orphans(tmp_path / "run.json") == []


def test_an_orphan_that_ends_by_itself_just_before_it_is_told_to_is_no_error(tmp_path, monkeypatch):
    kill = os.kill
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as orphan:

        def too_late(pid, sign):
            orphan.communicate()  # the end of its input is its own
            kill(pid, sign)

        monkeypatch.setattr(record, "os", SimpleNamespace(kill=too_late))
        record.write(tmp_path / "run.json", {"children": {"redis": record.identity(orphan.pid)}})
        assert record.end_orphans(tmp_path / "run.json") == ["redis"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1'])
def test_a_torn_record_is_no_record(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    assert record.read_live(tmp_path / "run.json") is None
    assert record.end_orphans(tmp_path / "run.json") == []


# -- restarts


def test_pauses_grow_to_a_limit_and_start_anew_after_a_steady_run(tmp_path):
    made = child(tmp_path / "log")
    pauses = [made.plan_restart(now=1.0) for _ in range(10)]
    assert pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses[-1] == LONGEST_PAUSE_S
    assert made.plan_restart(now=STEADY_S + 1.0) == FIRST_PAUSE_S


def test_a_log_is_cut_only_past_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr("deploy.embedded.child.LOG_BYTES", 10)
    log = tmp_path / "a.log"
    log.write_text("short")
    keep_small(log)
    assert log.read_text() == "short"
    log.write_text("longer than ten")
    keep_small(log)
    assert (log.read_text(), (tmp_path / "a.log.1").read_text()) == ("", "longer than ten")


def test_the_last_lines_are_those_at_the_end(tmp_path):
    (tmp_path / "log").write_text("".join(f"line {i}\n\n" for i in range(5000)))
    assert child(tmp_path / "log").last_lines(2) == ["line 4998", "line 4999"]


# -- the relay


def test_the_relay_shows_new_warnings_and_no_traceback(tmp_path):
    file = tmp_path / "log"
    file.write_text("error: old\n")
    relay = Relay(file)
    with file.open("a") as f:
        f.write("error: new\n  File x\nwarning: too\nerror: half")
    assert relay.new_lines(0.0) == ["error: new", "warning: too"]
    with file.open("a") as f:
        f.write(" a line\n")
    assert relay.new_lines(0.1) == ["error: half a line"]


def test_the_relay_holds_a_flood_back_and_counts_it(tmp_path):
    file = tmp_path / "log"
    relay = Relay(file)
    file.write_text("error: again\n" * 100)
    assert len(relay.new_lines(0.0)) == BURST
    assert relay.new_lines(1.0) == []
    assert relay.new_lines(EVERY_S) == [f"{100 - BURST} more like these in {file}"]


# -- progress


def test_lag_is_from_the_greater_of_done_and_committed():
    assert Position("t", 0, 0, 10, committed=3, done=7).lag == 3
    assert Position("t", 0, 0, 10, committed=7, done=3).lag == 3
    assert Position("t", 0, 4, 10, committed=None, done=None).lag == 6
    assert Position("t", 0, 0, 10, committed=10, done=12).lag == 0


def test_positions_that_cannot_be_read_are_left_out():
    assert parse_published({"0": '{"done": 5}', "tide.events:1": '{"done": 6}', "2": "{", "x": "{}"}) == {
        0: 5,
        1: 6,
    }


class AnAdmin:
    """A log of two partitions; the port's three reading calls."""

    def topics(self):
        return {"tide.events": TopicInfo("tide.events", "0", 2)}

    def bounds(self, partitions):
        return dict.fromkeys(partitions, (0, 100))

    def committed(self, group, partitions):
        return {p: 40 for p in partitions if p.partition == 0}


def test_positions_are_of_the_topics_that_exist():
    found = positions(AnAdmin(), "g", ["tide.events", "tide.dead"], lambda _: {"1": '{"done": 90}'})
    assert [(p.partition, p.lag) for p in found] == [(0, 60), (1, 10)]


# -- what processes are told


def test_given_settings_become_variables_and_the_shell_s_are_dropped(tmp_path):
    settings = Settings({"slice.records": 5, "log.path": "/d/log"})
    made = plan.environment(Places(tmp_path), settings, {"PATH": "/bin", "TIDE_DEBUG": "1", "HOME": "/h"})
    assert made["TIDE_SLICE_RECORDS"] == "5"
    assert made["TIDE_LOG_PATH"] == "/d/log"
    assert "TIDE_DEBUG" not in made
    assert made["HOME"] == "/h"


def test_topologies_get_every_given_setting_as_an_option(tmp_path):
    made = plan.topology(Places(tmp_path), "events", Settings({"slice.records": 5, "log.path": "/a: b"}), {})
    assert "tide.slice.records=5" in made.command
    assert 'tide.log.path="/a: b"' in made.command


def test_redis_conf_quotes_paths_and_never_evicts():
    text = redis.configuration(Path('/a "b" c'), Path("/a/s"))
    assert 'dir "/a \\"b\\" c"\n' in text
    assert "maxmemory-policy noeviction\n" in text
    # A rewrite of the append-only file takes a core for seconds.
    assert "rdbcompression no\n" in text
    assert "auto-aof-rewrite-min-size 256mb\n" in text
    assert "port 0\n" in text


def test_endless_traffic_and_a_replay_are_the_same_commands_users_have(tmp_path):
    made = Traffic(200, None, None).command("http://x", tmp_path / "t")
    assert made[4] == "generate"
    assert Traffic(50, 20, tmp_path / "f.csv").command("http://x", tmp_path / "t")[4:6] == [
        "replay",
        str(tmp_path / "f.csv"),
    ]


def test_old_truths_are_forgotten(tmp_path):
    for i in range(9):
        (tmp_path / f"{i}.jsonl").touch()
    forget_old_truths(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["5.jsonl", "6.jsonl", "7.jsonl", "8.jsonl"]


# -- ./tide local


@pytest.fixture
def no_stores(monkeypatch):
    monkeypatch.setattr(local, "_store_options", lambda env: ["-o", f"tide.made={env}"])
    monkeypatch.delenv("TIDE_ENV", raising=False)


def test_local_fills_in_this_project_and_its_stores(no_stores):
    assert local.completed(["-n", "events"]) == [
        *("--project", str(local.ROOT), "-e", "embedded", "-o", "tide.made=embedded"),
        *("-n", "events"),
    ]


def test_local_keeps_what_is_said(no_stores):
    assert local.completed(["-estack", "-n", "events"])[2:4] == ["-o", "tide.made=stack"]
    assert local.completed(["--environment=stack"])[2:4] == ["-o", "tide.made=stack"]


def test_local_leaves_a_foreign_project_alone(no_stores, tmp_path):
    given = ["-n", "wordcount", "--project", str(tmp_path)]
    assert local.completed(given) == given
