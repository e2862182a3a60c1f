"""One build at a time in a project, and a jar of its own for each `storm`."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from deploy.storm.building import TAKEN, take, turn


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "project.clj").write_text("(defproject a)")
    return tmp_path


def waiting(project: Path, waits: threading.Event, has_it: threading.Event) -> threading.Thread:
    def second() -> None:
        with turn(project, lambda _: waits.set()):
            has_it.set()

    thread = threading.Thread(target=second)
    thread.start()
    return thread


@pytest.mark.parametrize("early", [True, False])
def test_the_second_waits_until_the_firsts_turn_ends(project: Path, early: bool) -> None:
    waits, has_it = threading.Event(), threading.Event()
    with turn(project, lambda _: None) as end:
        thread = waiting(project, waits, has_it)
        assert waits.wait(10), "it says that it waits"
        assert not has_it.is_set()
        if early:
            end()
            assert has_it.wait(10)
    assert has_it.wait(10)
    thread.join()


def test_another_project_does_not_wait(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / "project.clj").touch()
    said: list[str] = []
    with turn(project, said.append), turn(other, said.append), turn(other / "none", said.append):
        assert said == []


def test_a_jar_is_copied_for_whoever_waits_and_old_copies_go(tmp_path: Path) -> None:
    jar, folder, marker = tmp_path / "a.jar", tmp_path / "in-use", tmp_path / "waiting"
    jar.write_bytes(b"jar")
    marker.touch()
    folder.mkdir()
    gone, lives = folder / "4194305.jar", folder / f"{os.getppid()}.jar"
    gone.touch()
    lives.touch()
    environ = {TAKEN: str(marker)}
    own = Path(take(str(jar), folder, environ))
    assert own.read_bytes() == b"jar"
    assert own != jar
    assert not marker.exists()
    assert not gone.exists()
    assert lives.exists()
    assert environ == {}, "what storm starts is not told"


def test_where_nobody_waits_the_jar_stays_where_it_is(tmp_path: Path) -> None:
    assert take("a.jar", tmp_path / "in-use", {}) == "a.jar"
    assert not (tmp_path / "in-use").exists()
