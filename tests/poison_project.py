"""Clicktide's own project with one bolt that poison kills: for tests, nothing like it is in what ships. No pytest in here.

A record that has `MARK` in it ends the process of the bolt that parses it; with `worker` set, all of the topology's processes
that wrote their pid where Storm asks for it, as Storm's worker takes all of them along.
"""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MARK = b"poison-for-tests"

BOLT = f"""
import os
import signal
import sys

from bolts.parse import ParseBolt
from clicktide.packing import unpack
from clicktide.slices import Records


class KilledBolt(ParseBolt):
    def process(self, tup):
        if any({MARK!r} in value for value in unpack(tup.values[0], Records).values):
            if self.storm_conf.get("test.worker"):
                for name in os.listdir(self.storm_conf["test.pids"]):
                    if int(name) != os.getpid():
                        os.kill(int(name), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGSEGV)
        super().process(tup)
"""


def project(folder: Path) -> Path:
    """A copy of the project's sources and wiring, with the bolt in the place of the one that parses."""
    for name in ("src", "topologies", "retry", "virtualenvs"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("config.json", "project.clj"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "src" / "bolts" / "killed.py").write_text(BOLT)
    wiring = folder / "topologies" / "events.py"
    text = wiring.read_text().replace("ParseBolt", "KilledBolt")
    wiring.write_text(text.replace("from bolts.parse import", "from bolts.killed import"))
    return folder
