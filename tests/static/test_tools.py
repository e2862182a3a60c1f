"""ruff and mypy over the whole project: what they say is a failure like any other."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def tool(*command: str) -> str:
    """What the tool printed if it found something, else nothing."""
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_ruff_finds_nothing():
    assert tool("ruff", "check", "--quiet", ".") == ""


def test_everything_is_formatted():
    assert tool("ruff", "format", "--check", "--quiet", ".") == ""


@pytest.mark.static
@pytest.mark.timeout(600)
def test_mypy_finds_nothing():
    assert tool("mypy", "--no-error-summary") == ""


def test_mypy_looks_at_every_package_there_is():
    files = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["mypy"]["files"]
    packages = {p.parent.name for p in ROOT.glob("*/*.py")} - {"tests", "topologies", "_resources", "_build"}
    assert packages <= set(files)
