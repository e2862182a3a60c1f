"""The command line's own promises: lazily loaded commands, one line an error, exit codes."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from cli import main as cli
from clicktide.errors import SettingError

ROOT = Path(__file__).resolve().parent.parent.parent.parent


@pytest.fixture
def commands(monkeypatch):
    """A command line of its own: what it is given is what there is."""

    def install(**functions):
        module = type(sys)("made_commands")
        for name, function in functions.items():
            setattr(module, name, function)
        monkeypatch.setitem(sys.modules, "made_commands", module)
        made = {name: cli.Command(f"made_commands:{name}", "Made", "Made up.") for name in functions}
        monkeypatch.setattr(cli, "available", lambda: made)

    return install


def test_help_names_every_command_of_this_checkout(capsys):
    assert cli.main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"\n  {name} " in said for name in cli.available())


def test_help_loads_no_command():
    code = "import sys, cli.main; cli.main.main(['--help']); print(sorted(sys.modules))"
    said = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"},
    ).stdout
    loaded = set(ast.literal_eval(said.splitlines()[-1]))
    assert not loaded & {"typer", "rich", "sqlalchemy", "redis", "cli.demo", "clicktide.settings"}


def test_every_target_exists_where_its_module_does():
    for name, command in cli.available().items():
        module, _, attribute = command.target.partition(":")
        tree = ast.parse((cli._module_file(command.target)).read_text("utf-8"))
        defined = {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
        defined |= {
            t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if hasattr(t, "id")
        }
        defined |= {a.asname or a.name for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names}
        assert attribute in defined, f"{name}: {module} has no {attribute}"


def test_an_unknown_command_is_one_line_and_exit_2(capsys):
    assert cli.main(["deom"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "'deom'" in said


def test_a_near_miss_is_pointed_out():
    assert "did you mean 'demo'" in cli.unknown("deom", {"demo": cli.COMMANDS["demo"]})


def test_a_function_s_answer_is_the_exit_code(commands):
    def seven() -> int:
        return 7

    commands(seven=seven)
    assert cli.main(["seven"]) == 7


@pytest.mark.parametrize(
    ("error", "code", "part"),
    [
        (SettingError("setting x: expected\na number"), 1, "setting x: expected a number"),
        (OSError(28, "No space left on device", "/data/log"), 1, "No space left on device: /data/log"),
        (ValueError("odd"), 1, "a fault in Clicktide, ValueError: odd"),
        (typer.BadParameter("--rate: expected a number"), 2, "--rate: expected a number"),
    ],
)
def test_an_error_is_one_line_without_a_traceback(commands, capsys, monkeypatch, error, code, part):
    monkeypatch.delenv("TIDE_DEBUG", raising=False)

    def fails() -> int:
        raise error

    commands(fails=fails)
    assert cli.main(["fails"]) == code
    said = capsys.readouterr().err
    assert part in said
    assert said.count("\n") == 1


def test_tide_debug_shows_the_traceback(commands, monkeypatch):
    monkeypatch.setenv("TIDE_DEBUG", "1")

    def fails() -> int:
        raise ValueError("odd")

    commands(fails=fails)
    with pytest.raises(ValueError, match="odd"):
        cli.main(["fails"])


def test_a_wrong_flag_is_one_line_and_exit_2(commands, capsys):
    def nothing() -> int:
        return 0

    commands(nothing=nothing)
    assert cli.main(["nothing", "--wrong"]) == 2
    said = capsys.readouterr().err
    assert "--wrong" in said
    assert said.count("\n") == 1


def test_ctrl_c_is_130_and_quiet(commands, capsys):
    def interrupted() -> int:
        raise KeyboardInterrupt

    commands(interrupted=interrupted)
    assert cli.main(["interrupted"]) == 130
    assert capsys.readouterr() == ("", "")
