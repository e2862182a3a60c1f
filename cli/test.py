"""`./tide test`: becomes pytest, with what the chosen tests need.

Promises that pytest's closing line is the last one printed, and its exit code ours. Servers that tests need are started
and ended by tests/conftest.py, which knows what was selected; here it is only allowed to.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What is pure and fast, with fewer examples of each property.
FEW = [
    "-m",
    "not service and not embedded and not store and not web and not static",
    "--hypothesis-profile=fast",
]
# tests/conftest.py starts real servers only when this says so: a plain `pytest` never does.
SERVERS = "CLICKTIDE_TEST_SERVERS"

HELP = """Usage: ./tide test [--fast] [pytest's arguments]

Sets up and runs the tests: ruff, mypy and all suites. Suites that need servers (Kafka, MariaDB, Storm, a browser) have
them started where they can be had; where not, they are skipped with the reason, and under CI=true they fail.

  --fast     only what starts no process and waits for no disk; seconds
  anything else goes to pytest: ./tide test tests/unit -k parse -x

Markers: service, embedded, store (the contract suites), web, static (mypy over everything)."""


def main(args: list[str]) -> int:  # noqa: RET503 - execve does not return
    if any(word in ("-h", "--help") for word in args):
        print(HELP)
        return 0
    command, environment = pytest_call(args, dict(os.environ))
    os.chdir(ROOT)
    sys.stdout.flush()
    os.execve(sys.executable, command, environment)  # noqa: S606 - our own interpreter


def pytest_call(args: list[str], environ: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """pytest's command line and environment for these arguments."""
    fast = "--fast" in args
    rest = [word for word in args if word != "--fast"]
    command = [sys.executable, "-P", "-m", "pytest", *(FEW if fast else []), *rest]
    # A shell's TIDE_* would reach every test of the settings.
    kept = {
        k: v
        for k, v in environ.items()
        if not k.startswith("TIDE_") or k.startswith("TIDE_STACK_") or k in KEPT
    }
    return command, {**kept, SERVERS: "no" if fast else "yes"}


KEPT = frozenset({"TIDE_CACHE", "TIDE_KAFKA_BOOTSTRAP", "TIDE_SQL_DSNS"})
