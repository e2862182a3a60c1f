"""`./tide sparse run` where an official Storm is on PATH: streamparse's calls reach that one, with the jar that was built."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.stack.settings import PROJECT
from deploy.storm.home import STORM_VERSION

pytestmark = pytest.mark.embedded

SAMPLE = PROJECT / "tests" / "integration" / "stack" / "project"
STORM = f"""#!/bin/sh
echo "$@" >> "$CALLS"
[ "$1" = version ] && echo "Storm {STORM_VERSION}"
exit 0
"""
LEIN = f"""#!/bin/sh
case "$1" in
  deps) echo ' [org.apache.storm/storm-core "{STORM_VERSION}"]' ;;
  uberjar) touch the-standalone.jar; echo "Created $PWD/the-standalone.jar" ;;
esac
"""


def test_it_is_taken_before_ours(tmp_path: Path) -> None:
    official = tmp_path / "official"
    official.mkdir()
    for name, text in (("storm", STORM), ("lein", LEIN), ("java", "#!/bin/sh\n")):
        (official / name).write_text(text)
        (official / name).chmod(0o755)
    project = Path(shutil.copytree(SAMPLE, tmp_path / "project"))
    calls = tmp_path / "calls"
    done = subprocess.run(
        [sys.executable, "-m", "cli.sparse", "run", "-n", "counting", "-e", "stack", "-t", "5"],
        cwd=project,
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith("TIDE_")},
            "PATH": f"{official}:{os.environ['PATH']}",
            "PYTHONPATH": str(PROJECT),
            "TIDE_STACK_HOME": str(tmp_path / "none"),
            "CALLS": str(calls),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    first, last = calls.read_text().splitlines()[0], calls.read_text().splitlines()[-1]
    assert first == "version"
    assert last.startswith(f"jar {project}/the-standalone.jar org.apache.storm.flux.Flux --local")
    assert not (tmp_path / "none").exists(), "no Storm of ours is laid out"
