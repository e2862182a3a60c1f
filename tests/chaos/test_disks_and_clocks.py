"""Small disks and wrong clocks: in processes of their own, as a run has them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.chaos.clocks import Clocks

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = [pytest.mark.embedded, pytest.mark.timeout(90)]

FULL_AND_FREE = """
import errno, sys
from pathlib import Path
from bench.chaos import disks
folder = Path(sys.argv[1]) / "disk"
small = disks.Disks()
if small.why_not:
    print("none:", small.why_not)
    sys.exit(0)
disk = small.mount(folder, 2)
(folder / "kept").write_bytes(b"before")
(folder / "gone").write_bytes(b"x" * 9000)
disk.fill()
(folder / "gone").unlink()
disk.fill()
try:
    (folder / "other").write_bytes(b"x" * 10)
    print("not full")
except OSError as e:
    print("full" if e.errno == errno.ENOSPC else e)
disk.empty()
(folder / "other").write_bytes(b"x" * 10)
small.release(keep=True)
print(sorted(p.name for p in folder.iterdir()))
"""


def python(*words: str, environ: dict[str, str] | None = None) -> str:
    path = os.pathsep.join([(environ or {}).get("PYTHONPATH", ""), str(ROOT), str(ROOT / "src")])
    done = subprocess.run(
        [sys.executable, "-P", *words],
        env={**os.environ, **(environ or {}), "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_disk_is_full_then_free_and_its_files_are_kept(tmp_path):
    said = python("-c", FULL_AND_FREE, str(tmp_path)).splitlines()
    if said[0].startswith("none:"):
        pytest.skip(said[0])
    assert said == ["full", "['kept', 'other']"]
    assert (tmp_path / "disk" / "kept").read_bytes() == b"before"
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


CLOCK = """
import sys, time
for line in sys.stdin:
    print(time.time(), time.time_ns() / 1e9, time.monotonic(), flush=True)
"""


def test_a_clock_is_off_by_what_was_set_and_only_in_its_process(tmp_path):
    clocks = Clocks(tmp_path / "clocks", {"events.parse": "ParseBolt", "events.persist": "PersistBolt"})
    environ = {**os.environ, **clocks.environment({"PYTHONPATH": ""})}

    def running(word: str) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", CLOCK, f"bolts.some.{word}"]
        return subprocess.Popen(words, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def looked(process: subprocess.Popen[str]) -> list[float]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        return [float(word) for word in process.stdout.readline().split()]

    with running("ParseBolt") as wrong, running("PersistBolt") as right:
        before = looked(wrong), looked(right)
        clocks.set("events.parse", -600.0)
        after = looked(wrong), looked(right)
        clocks.set("events.parse", 0.0)
        again = looked(wrong)
        for process in (wrong, right):
            assert process.stdin is not None
            process.stdin.close()
    # On a loaded machine much time may pass between two looks, but not minutes.
    assert all(-610 < after[0][i] - before[0][i] < -500 for i in (0, 1))
    assert 0 <= after[0][2] - before[0][2] < 100
    assert all(0 <= after[1][i] - before[1][i] < 100 for i in (0, 1, 2))
    assert 0 <= again[0] - before[0][0] < 100
