"""The set-up's decisions: what is missing, and when `.venv` has to be made anew."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from cli import setup
from deploy import lock

LOCK = "# made\n\n# --- run\na==1 \\\n    --hash=sha256:aa\n\n# --- test\nb==2 \\\n    --hash=sha256:bb\n"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with a finished `.venv`."""
    (tmp_path / "requirements.lock").write_text(LOCK)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    for name, path in {
        "ROOT": tmp_path,
        "VENV": tmp_path / ".venv",
        "PYTHON": tmp_path / ".venv" / "bin" / "python",
        "LOCK": tmp_path / "requirements.lock",
        "MARKER": tmp_path / ".venv" / "clicktide.json",
    }.items():
        monkeypatch.setattr(setup, name, path)
    setup._write_marker({name: setup.digest(text) for name, text in setup.sections(LOCK).items()})
    return tmp_path


def test_sections_are_read_by_name():
    found = setup.sections(LOCK)
    assert list(found) == ["run", "test"]
    assert "a==1" in found["run"]
    assert "b==2" not in found["run"]


def test_nothing_is_missing_after_a_finished_set_up(checkout):
    assert setup.missing(("run", "test")) == {}


def test_a_changed_section_is_missing_and_the_other_is_not(checkout):
    setup.LOCK.write_text(LOCK.replace("b==2", "b==3"))
    assert list(setup.missing(("run", "test"))) == ["test"]


def test_without_a_marker_everything_is_missing(checkout):
    setup.MARKER.unlink()
    assert list(setup.missing(("run",))) == ["run"]
    assert setup.installed() == {}


def test_a_torn_marker_counts_as_none(checkout):
    setup.MARKER.write_text('{"root": "')
    assert setup.installed() == {}


def test_a_moved_checkout_is_set_up_anew(checkout):
    said = json.loads(setup.MARKER.read_text())
    setup.MARKER.write_text(json.dumps({**said, "root": "/somewhere/else"}))
    assert setup.installed() == {}


def test_a_vanished_python_is_set_up_anew(checkout):
    setup.PYTHON.unlink()
    setup.PYTHON.symlink_to("/nonexistent/python3.11")
    assert setup.installed() == {}


def test_only_the_tests_need_the_test_section():
    assert setup.needed(["demo"]) == ("run",)
    assert setup.needed([]) == ("run",)
    assert setup.needed(["test", "--fast"]) == ("run", "test")


def test_nothing_missing_touches_nothing(checkout, monkeypatch):
    monkeypatch.setattr(setup.subprocess, "run", pytest.fail)
    monkeypatch.setattr(setup.subprocess, "Popen", pytest.fail)
    setup.set_up(("run", "test"))


def test_the_environment_imports_from_this_checkout_alone(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("PYTHONHOME", "/elsewhere")
    made = setup.environment()
    assert made["PYTHONPATH"] == f"{setup.ROOT}:{setup.ROOT / 'src'}"
    assert "PYTHONHOME" not in made


def test_a_network_that_is_away_is_named():
    said = [
        "WARNING: Retrying (Retry(total=1)) after connection broken",
        "ERROR: No matching distribution found for a",
    ]
    assert "does not answer" in setup._reason(said)
    assert setup._reason(said[1:]) == "No matching distribution found for a"


def test_the_lock_file_has_both_sections_each_package_once_with_hashes():
    text = (Path(setup.__file__).parent.parent / "requirements.lock").read_text("utf-8")
    found = {name: lock.pins(section) for name, section in setup.sections(text).items()}
    assert list(found) == ["run", "test"]
    assert not set(found["run"]) & set(found["test"])
    assert all("--hash=sha256:" in block for blocks in found.values() for block in blocks.values())
    assert "pytest" in found["test"]
    assert "streamparse" in found["run"]
    assert "://" not in text


def test_sections_that_disagree_are_refused():
    with pytest.raises(ValueError, match="a"):
        lock.render({"a": "a==1\n"}, {"a": "a==2\n"})
