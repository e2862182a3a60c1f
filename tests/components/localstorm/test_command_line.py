"""`python -m localstorm` as a user runs it: what it says, how it ends, and that nothing is left behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

import localstorm

pytestmark = pytest.mark.embedded

CHECKOUT = Path(localstorm.__file__).resolve().parent.parent
NUMBERS = """
    numbers = Numbers.spec()
    slow = Slow.spec(inputs=[numbers], par=2)
"""
DEADLINE = 40.0


def command(project, *arguments):
    return [sys.executable, "-m", "localstorm", "--project", str(project), *map(str, arguments)]


def environment():
    # As `./tide local` sets it: the project's own bolts and spouts must win nevertheless.
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "src")])}


def run(project, *arguments, **keywords):
    return subprocess.run(
        command(project, *arguments),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **keywords,
    )


def wait_for(what, deadline=DEADLINE):
    until = time.monotonic() + deadline
    while time.monotonic() < until:
        found = what()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("not within the deadline")


def is_running(pid):
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):  # the latter where it ends between open and read
        return False


def read_stats(path):
    try:
        return localstorm.read_file(path)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


@pytest.fixture
def start(tmp_path):
    """Starts the runner; gives the process and the pids of its components once all run."""
    started = []

    def begin(project, *arguments):
        stats = tmp_path / "stats.json"
        process = subprocess.Popen(
            command(project, "--stats-file", stats, *arguments),
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)

        def pids():
            snapshot = read_stats(stats)
            if snapshot and snapshot.state == "running" and all(task.pid for task in snapshot.tasks):
                return [task.pid for task in snapshot.tasks]
            return None

        return process, wait_for(pids), stats

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def test_the_quickstart_project_runs_unchanged(tmp_path):
    sparse = Path(sys.executable).parent / "sparse"
    subprocess.run(
        [sparse, "quickstart", "wordcount"],
        cwd=tmp_path,
        env={**os.environ, "LEIN_ROOT": "yes"},
        check=True,
        capture_output=True,
    )
    project = tmp_path / "wordcount"
    stats = tmp_path / "stats.json"
    done = run(project, "-n", "wordcount", "-t", 2, "--stats-file", stats)
    assert done.returncode == 0, done.stderr
    snapshot = localstorm.read_file(stats)
    emitted = snapshot.component("word_spout").emitted
    assert emitted > 100
    assert snapshot.component("count_bolt").acked == emitted
    assert [task.index for task in snapshot.tasks if task.component == "count_bolt"] == [0, 1]
    assert snapshot.state == "ended"
    assert "left un-acked" not in done.stderr
    counted = "".join(path.read_text() for path in (project / "logs").glob("wordcount-count_bolt-*.log"))
    assert "StormHandler logging enabled" in counted


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_drains_and_ends_everything(make_project, start, number):
    project = make_project(NUMBERS)
    process, pids, stats = start(project, "-o", "limit=60", "-o", "topology.max.spout.pending=20")
    process.send_signal(number)
    _, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, errors
    assert "left un-acked" not in errors
    assert not [pid for pid in pids if is_running(pid)]
    last = localstorm.read_file(stats)
    assert last.component("numbers").acked == last.component("numbers").emitted > 0


def test_what_could_not_be_drained_is_said(make_project, start):
    project = make_project(NUMBERS)
    process, pids, stats = start(project, "--drain", "0", "-o", "limit=50", "-o", "nap=120")
    wait_for(lambda: (snapshot := read_stats(stats)) and snapshot.component("numbers").pending == 50)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert "left un-acked: 50 spout tuples" in errors
    assert not [pid for pid in pids if is_running(pid)]


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG")
def test_components_do_not_outlive_a_killed_runner(make_project, start):
    process, pids, stats = start(make_project(NUMBERS), "-o", "nap=120")
    # Asleep in its work, a bolt does not see its stdin end.
    wait_for(lambda: (snapshot := read_stats(stats)) and snapshot.component("slow").inflight)
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: not [pid for pid in pids if is_running(pid)], 10)


def test_what_a_component_started_ends_with_it(make_project, tmp_path):
    project = make_project("""
        numbers = Numbers.spec()
        sibling = Sibling.spec(inputs=[numbers])
        last = Context.spec(inputs=[sibling])
    """)
    from localstorm.testing import run_topology

    result = run_topology(project, capture=["sibling"], options={"limit": 1})
    ((pid,),) = result.values("sibling")
    wait_for(lambda: not is_running(pid), 5)


def test_killing_a_component_costs_only_that_one(make_project, start):
    project = make_project(NUMBERS)
    process, pids, stats = start(project, "-o", "limit=100000", "-o", "topology.max.spout.pending=50")
    os.kill(pids[-1], signal.SIGKILL)

    def back():
        snapshot = read_stats(stats)
        return (
            snapshot
            and sum(task.restarts for task in snapshot.tasks) == 1
            and all(t.pid for t in snapshot.tasks)
        )

    wait_for(back)
    assert [task.pid for task in read_stats(stats).tasks][:-1] == pids[:-1]
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=DEADLINE)
    assert "died (killed by SIGKILL" in errors


def test_too_many_restarts_end_the_run_if_asked_for(make_project):
    project = make_project("""
        numbers = Numbers.spec()
        dies = AlwaysDies.spec(inputs=[numbers])
    """)
    done = run(project, "--max-restarts", 1)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: dies task 2 died 2 times (--max-restarts 1)"


def test_options_of_sparse_run(make_project, start, tmp_path):
    project = make_project(
        """
        config = {"limit": 3}
        numbers = Numbers.spec()
        echo = Echo.spec(inputs=[numbers], par={"one": 1, "two": 2})
        """,
        envs={"one": {}, "two": {"options": {"limit": 5}}},
    )
    other = tmp_path / "other.json"
    shutil.copy(project / "config.json", other)
    process, _, stats = start(
        project, "-e", "two", "-o", "limit=7", "-w", 3, "-a", 2, "--par", "numbers=2", "--config", other,
        "-N", "renamed", "--log-dir", tmp_path / "elsewhere", "--quiet", "--debug",
    )  # fmt: skip
    wait_for(lambda: (snapshot := read_stats(stats)) and snapshot.component("numbers").acked >= 14)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, errors
    assert errors == ""
    snapshot = localstorm.read_file(stats)
    assert snapshot.topology == "renamed"
    assert [task.component for task in snapshot.tasks] == ["echo", "echo", "numbers", "numbers"]
    assert [task.id for task in snapshot.tasks] == [3, 4, 5, 6]
    assert snapshot.component("numbers").acked == 14
    assert (tmp_path / "elsewhere" / "renamed-echo-3.log").exists()
    assert not (project / "logs").exists()


def test_a_table_on_request(make_project):
    done = run(make_project(NUMBERS), "--table", "-t", 1)
    assert done.returncode == 0, done.stderr
    assert "capacity" in done.stdout
    assert "slow" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-n", "nope"], "no topology 'nope' in topologies: it has zoo"),
        (["-e", "nope"], "no environment 'nope' in config.json: it has here"),
        (["--par", "slow"], "--par slow: expected COMPONENT=N with N from 1"),
        (["--par", "nope=2"], "--par names nope: this topology has numbers, slow"),
        (["-o", "limit"], "option 'limit' is not of the form key=value"),
        (["-o", "a=[1"], "option 'a=[1': the value is not YAML"),
        (["-t", "soon"], "argument -t/--time: invalid seconds value: 'soon'"),
        (["-s", "msgpack"], "serializer 'msgpack': localstorm speaks json"),
        (
            ["-o", "topology.message.timeout.secs=x"],
            "topology.message.timeout.secs is 'x': expected a number",
        ),
        (["--config", "nope.json"], "no config.json"),
        (["--log-dir", "config.json/logs"], "cannot be written"),
        (["--stats-file", "nope/stats.json"], "stats file nope/stats.json cannot be written"),
    ],
)
def test_a_mistake_is_one_clear_line(make_project, arguments, expected):
    project = make_project(NUMBERS)
    done = run(project, *arguments, cwd=project)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert expected in line


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            'numbers = Numbers.spec()\njava = JavaBolt.spec(full_class_name="org.x.Y", args_list=[], inputs=[numbers])',
            "component 'java' is a Java component (org.x.Y), which needs a JVM",
        ),
        (
            'numbers = Numbers.spec()\nnode = ShellBolt.spec(command="no-such-node", script="x.js", inputs=[numbers])',
            "component 'node': its command 'no-such-node' is not on PATH",
        ),
        (
            'numbers = Numbers.spec()\necho = Echo.spec(inputs={numbers: Grouping.custom_object("org.x.G", [])})',
            "custom groupings are Java classes",
        ),
        ("numbers = Numbers.spec(par={'elsewhere': 1})", "no parallelism for environment 'here'"),
        (
            "echo = Echo.spec(inputs=[missing])",
            "NameError: name 'missing' is not defined",
        ),
    ],
)
def test_what_cannot_run_here_is_one_clear_line(make_project, body, expected):
    done = run(make_project(body))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert expected in line
    assert "topologies/zoo.py:" in line or "component" in line or "groupings" in line


def test_projects_that_are_none(tmp_path):
    for folder, expected in ((tmp_path, "no config.json"), (tmp_path / "nope", "no project folder")):
        done = run(folder)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert expected in line


def test_imports_that_would_fail_on_a_worker(make_project):
    head = "import sys\nsys.path.insert(0, '.')\nfrom streamparse import Topology\n"
    head += "from src.spouts.zoo import Numbers\nfrom bolts.zoo import Echo\n\n\nclass Zoo(Topology):\n"
    done = run(make_project("numbers = Numbers.spec()\necho = Echo.spec(inputs=[numbers])", head=head))
    assert done.returncode == 2
    assert "import it as spouts.zoo.Numbers" in done.stderr


def test_a_shell_component_that_can_run_runs(make_project, tmp_path):
    script = tmp_path / "shell.py"
    script.write_text(
        "import json, os, sys\n"
        "def read():\n"
        "    lines = []\n"
        "    while (line := sys.stdin.readline()) not in ('end\\n', ''): lines.append(line)\n"
        "    return json.loads(''.join(lines)) if lines else sys.exit()\n"
        "def send(message): print(json.dumps(message, indent=1) + '\\nend', flush=True)\n"
        "read()\n"
        "send({'pid': os.getpid()})\n"
        "waiting = []\n"
        "while True:\n"
        "    tup = waiting.pop(0) if waiting else read()\n"
        "    if tup['stream'] == '__heartbeat': send({'command': 'sync'})\n"
        "    else:\n"
        "        send({'command': 'emit', 'anchors': [tup['id']], 'tuple': [tup['tuple'], 'y' * 9000]})\n"
        "        while not isinstance(tasks := read(), list): waiting.append(tasks)\n"
        "        send({'command': 'ack', 'id': tup['id']})\n"
    )
    project = make_project(f"""
        numbers = Numbers.spec()
        shell = ShellBolt.spec(
            command={sys.executable!r}, script={str(script)!r}, inputs=[numbers], outputs=["n", "y"]
        )
        last = Echo.spec(inputs=[shell])
    """)
    from localstorm.testing import run_topology

    result = run_topology(project, capture=["last"])
    assert [n for n, _ in result.values("last")] == [[n] for n in range(10)]
    assert len(result.acked("numbers")) == 10


def test_prints_at_import_time_are_named(make_project):
    project = make_project("numbers = Numbers.spec()\necho = Echo.spec(inputs=[numbers])")
    with (project / "src" / "bolts" / "zoo.py").open("a") as file:
        # As Python does itself where PYTHONUNBUFFERED is set.
        file.write('\nprint("hello there", flush=True)\n')
    done = run(project, "--max-restarts", 0)
    assert done.returncode == 1
    assert "print() while the module is imported" in done.stderr
    assert "hello there" in done.stderr


def test_the_runner_beside_a_program(make_project, tmp_path):
    project = make_project(NUMBERS)
    plan = localstorm.load(localstorm.Request(project=project, options=("limit=20",)))
    settings = localstorm.Settings(plan=plan, project=project, log_dir=tmp_path / "logs")
    with localstorm.Runner(settings) as runner:
        wait_for(lambda: (stats := runner.stats()) and stats.component("numbers").acked == 20)
        assert json.dumps([task.pid for task in runner.stats().tasks])
    assert not runner.running
    assert runner.stats().state == "ended"
