"""Topologies on the real Storm, by streamparse's own commands: nothing is lost while it scales and crashes."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.stack.process import ProcessRecord, descendants, every_process
from deploy.stack.servers.storm import cluster_summary, worker_processes
from deploy.stack.stack import Stack

pytestmark = [pytest.mark.service, pytest.mark.timeout(900)]

FOR_EVER = 1_000_000
Command = Callable[..., "subprocess.CompletedProcess[str]"]


def files(folder: Path) -> set[Path]:
    """What its tasks have written numbers to: one file each, in each of their lives."""
    return set(folder.glob("*.txt"))


def counted(folder: Path, before: set[Path] = frozenset()) -> set[int]:
    """Numbers that were written down, in files that were not there before; a line cut by a crash is not counted."""
    found: set[int] = set()
    for path in files(folder) - before:
        found.update(int(line) for line in path.read_text().split("\n")[:-1])
    return found


def wait_until(met: Callable[[], object], what: str, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, f"{what} took longer than {seconds:.0f} s"
        time.sleep(0.3)


def submit(tide: Command, project: Path, name: str, folder: Path, total: int, *more: str) -> None:
    options = [f"counting.folder={folder}", f"counting.total={total}", "topology.message.timeout.secs=5"]
    pairs = [word for option in options for word in ("-o", option)]
    done = tide("sparse", "submit", "-n", name, "-e", "stack", *pairs, *more, cwd=project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pkg_resources" not in done.stderr


def executors(stack: Stack, name: str) -> int | None:
    summary = cluster_summary(stack.settings.nimbus_port, seconds=10)
    found = [item for item in (summary.topologies if summary else []) if item.name == name]
    return found[0].num_executors if found else None


def kill_all(stack: Stack, storm: Command) -> None:
    summary = cluster_summary(stack.settings.nimbus_port, seconds=10)
    for item in summary.topologies if summary else []:
        storm("kill", item.name, "-w", "0")
    wait_until(lambda: not worker_processes(stack.settings), "the end of all workers", 120)


def test_two_topologies_scale_crash_and_count_everything(
    stack: Stack, tide: Command, storm: Command, project: Path, tmp_path: Path
) -> None:
    numbers = tmp_path / "counting"
    try:
        submit(tide, project, "counting", numbers, FOR_EVER)
        submit(tide, project, "tally", tmp_path / "tally", 500, "-w", "2")
        assert (project / "_build").is_dir()
        assert max(jar.stat().st_size for jar in (project / "_build").rglob("*.jar")) < 20_000
        wait_until(lambda: len(counted(numbers)) > 100, "the first numbers")
        # A worker that still starts when its supervisor dies is replaced: of it the next supervisor knows nothing good.
        wait_until(lambda: counted(tmp_path / "tally"), "the other topology's first numbers")
        listed = storm("list").stdout
        assert "counting" in listed
        assert "tally" in listed

        # 1 spout, 2 of 4 bolt tasks, 1 acker; the two other tasks get executors of their own.
        assert executors(stack, "counting") == 4
        before = files(numbers)
        done = storm("rebalance", "counting", "-w", "1", "-e", "count=4")
        assert done.returncode == 0, done.stderr
        wait_until(lambda: executors(stack, "counting") == 6, "the rebalance")

        # The worker of before writes on until it is stopped.
        wait_until(lambda: len(counted(numbers, before)) > 100, "numbers after the rebalance")
        pids = {status.name: status.pid for status in stack.status()}
        workers = {record.pid for record in worker_processes(stack.settings)}
        stack.server("nimbus").kill()
        stack.server("supervisor").kill()
        stack.up()
        changed = {status.name for status in stack.status() if status.pid != pids[status.name]}
        assert changed == {"nimbus", "supervisor"}
        left = workers & {record.pid for record in worker_processes(stack.settings)}
        assert len(left) >= 4, "both workers of tally, and their log writers, outlive the daemons"

        # A spout begins anew in a new worker: of all it has sent since, nothing is missing.
        wait_until(lambda: counted(numbers, before) >= set(range(3_000)), "all numbers up to 3,000", 300)
        wait_until(lambda: counted(tmp_path / "tally") >= set(range(500)), "the other topology's last number")
        logs = storm("logs", "counting", "-n", "500")
        assert "ShellBolt" in logs.stdout, logs.stderr
    finally:
        kill_all(stack, storm)
    assert executors(stack, "counting") is None


def test_a_killed_worker_comes_back_and_workers_end_with_down_even_after_their_supervisor_died(
    stack: Stack, tide: Command, storm: Command, project: Path, tmp_path: Path
) -> None:
    numbers = tmp_path / "counting"
    try:
        submit(tide, project, "counting", numbers, FOR_EVER, "-o", "topology.max.spout.pending=20")
        wait_until(lambda: len(counted(numbers)) > 100, "the first numbers")
        before = files(numbers)
        workers, children = processes(stack)
        for record in workers:
            subprocess.run(["kill", "-9", str(record.pid)], check=False)
        wait_until(lambda: not alive(children), "the end of a killed worker's Python processes")
        # The spout starts over in the new worker.
        wait_until(lambda: counted(numbers, before) >= set(range(1_000)), "all numbers up to 1,000", 300)

        workers, children = processes(stack)
        assert len(workers) == 2, "the worker and its log writer"
        assert len(children) >= 3
        stack.server("supervisor").kill()
        assert tide("stack", "wipe", "--yes").returncode == 1
        assert tide("stack", "down", "--only", "storm").returncode == 0
        assert not alive({record.pid for record in workers} | children)
        # The topology itself was only interrupted.
        before = files(numbers)
        stack.up()
        wait_until(lambda: counted(numbers, before), "numbers after the restart")
    finally:
        stack.up()
        kill_all(stack, storm)


def processes(stack: Stack) -> tuple[list[ProcessRecord], set[int]]:
    """The workers with their log writers, and the pids of all that they have started."""
    workers = worker_processes(stack.settings)
    return workers, {stat.pid for stat in descendants(every_process(), [record.pid for record in workers])}


def alive(pids: set[int]) -> set[int]:
    return pids & {stat.pid for stat in every_process() if stat.runs}


def test_sparse_run_needs_no_running_stack_and_leaves_nothing(
    tide: Command, project: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "local"
    options = ["-o", f"counting.folder={folder}", "-o", "counting.total=1000"]
    # What is started inherits the mark.
    run = ["run", "-n", "counting", "-e", "stack", "-t", "20", *options]
    done = tide("sparse", *run, cwd=project, more={"COUNTING_MARK": str(folder)})
    assert done.returncode == 0, done.stdout + done.stderr
    assert counted(folder) == set(range(1000))
    assert not [path for path in Path("/proc").glob("[0-9]*/environ") if str(folder).encode() in _read(path)]


def test_a_broken_component_shows_its_traceback(tide: Command, project: Path) -> None:
    bolt = project / "src" / "bolts" / "counting.py"
    # Only where components run: the command line has to be able to load the topology.
    bolt.write_text(
        "import sys\n"
        "if 'streamparse_run' in sys.argv[0]:\n"
        "    raise RuntimeError('broken on purpose')\n" + bolt.read_text()
    )
    done = tide("sparse", "run", "-n", "counting", "-e", "stack", "-t", "60", cwd=project)
    assert done.returncode != 0
    assert "RuntimeError: broken on purpose" in done.stdout + done.stderr


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
