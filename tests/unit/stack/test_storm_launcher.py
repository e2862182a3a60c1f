"""The `storm` command and the shell it lives in."""

import stat
from pathlib import Path

import pytest

from deploy.stack.debian import missing_packages, services_held_back
from deploy.stack.errors import StackError
from deploy.stack.settings import PROJECT, settings_from
from deploy.storm.home import STORM_VERSION
from deploy.storm.launcher import (
    LONGEST_LOCAL_SECONDS,
    jar_argv,
    local_argv,
    local_seconds,
    main,
    split_flux_local,
)
from deploy.storm.loopback import library, loopback_environment
from deploy.storm.shell import (
    LAUNCHER,
    component_environment,
    official_storm,
    shell_variables,
    worker_environment,
)

FLUX = "org.apache.storm.flux.Flux"
FOR_EVER = "9223372036854775807"
SETTINGS = settings_from({"HOME": "/h"}, home=Path("/s"))


def test_streamparses_call_becomes_local_mode() -> None:
    call = [FLUX, "--local", "--no-splash", "--sleep", "30", "a.yaml"]
    assert split_flux_local(call) == ([FLUX, "--no-splash", "a.yaml"], 30)


def test_for_ever_is_capped() -> None:
    call = [FLUX, "--local", "--sleep", FOR_EVER, "a.yaml"]
    assert split_flux_local(call) == ([FLUX, "a.yaml"], LONGEST_LOCAL_SECONDS)
    assert LONGEST_LOCAL_SECONDS * 1000 < 2**31


@pytest.mark.parametrize("call", [[FLUX, "--remote", "a.yaml"], ["my.Main", "--local"], []])
def test_other_calls_stay_as_they_are(call: list[str]) -> None:
    assert split_flux_local(call) is None


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5"])
def test_bad_seconds_are_refused(text: str) -> None:
    with pytest.raises(StackError, match="no number of seconds"):
        local_seconds(text)


def test_the_topologys_jar_comes_first() -> None:
    for argv in (
        local_argv(Path("/home"), "t.jar", [FLUX, "a"], 9),
        jar_argv(Path("/home"), "t.jar", [FLUX, "a"]),
    ):
        assert argv[argv.index("-cp") + 1].split(":")[:2] == ["t.jar", "/home/lib/*"]
        assert "-Dstorm.jar=t.jar" in argv


def test_version_is_what_streamparse_reads(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"Storm {STORM_VERSION}\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["fly"], "no verb 'fly'"),
        (["logs", "ghost"], "no worker logs of ghost"),
    ],
)
def test_mistakes_get_one_line(
    arguments: list[str],
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TIDE_STACK_HOME", str(tmp_path))
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"storm: {line}")
    assert error.count("\n") == 1


def test_no_verb_shows_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "rebalance NAME" in capsys.readouterr().out


def fake_storm(folder: Path) -> Path:
    folder.mkdir()
    (folder / "storm").write_text("#!/bin/sh\n")
    (folder / "storm").chmod(0o755)
    return folder


def test_ours_stands_in_only_where_no_storm_is(tmp_path: Path) -> None:
    without = shell_variables({"PATH": "/none"}, SETTINGS)
    assert without["PATH"].split(":")[0] == str(LAUNCHER)
    assert without["STORM_HOME"] == "/s/storm/home"
    theirs = {"PATH": str(fake_storm(tmp_path / "official"))}
    assert official_storm(theirs) == str(tmp_path / "official" / "storm")
    assert str(LAUNCHER) not in shell_variables(theirs, SETTINGS)["PATH"]
    assert "STORM_HOME" not in shell_variables(theirs, SETTINGS)


def test_setting_the_shell_up_twice_changes_nothing() -> None:
    once = {"PATH": "/bin", **shell_variables({"PATH": "/bin"}, SETTINGS)}
    assert {**once, **shell_variables(once, SETTINGS)} == once


def test_workers_do_not_import_the_working_tree() -> None:
    environment = {"PYTHONPATH": f"{PROJECT}:{PROJECT}/src:/elsewhere", "A": "b"}
    assert worker_environment(environment) == {"PYTHONPATH": "/elsewhere", "A": "b"}
    assert worker_environment({"PYTHONPATH": str(PROJECT)}) == {}


def test_components_inherit_no_setting_of_the_shell() -> None:
    environment = {"TIDE_SQL_DSNS": "x", "TIDE_STACK_HOME": "/s", "PYTHONPATH": str(PROJECT), "A": "b"}
    assert component_environment(environment) == {"A": "b"}


def test_the_preloaded_library_is_added_once() -> None:
    ours = str(library(SETTINGS))
    once = loopback_environment({"LD_PRELOAD": "/x.so"}, SETTINGS)
    assert once["LD_PRELOAD"] == f"{ours}:/x.so"
    assert loopback_environment(once, SETTINGS) == once


def test_a_missing_program_names_its_package_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("deploy.stack.debian.SYSTEM_FOLDERS", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    programs = ["mariadbd", "mariadb-install-db", "cc", "redis-server"]
    assert missing_packages(programs) == ["mariadb-server", "tcc", "redis-server"]
    for name in ("gcc", "redis-server"):
        (tmp_path / name).touch(mode=0o755)
    assert missing_packages(programs) == ["mariadb-server"], "any C compiler does"


def test_debians_services_stay_down_while_installing(tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    with services_held_back(policy):
        assert "exit 101" in policy.read_text()
        assert policy.stat().st_mode & stat.S_IXUSR
    assert not policy.exists()
    policy.write_text("before")
    policy.chmod(0o700)
    with pytest.raises(ZeroDivisionError), services_held_back(policy):
        1 / 0  # noqa: B018
    assert policy.read_text() == "before"
    assert stat.S_IMODE(policy.stat().st_mode) == 0o700
