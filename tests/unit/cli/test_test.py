"""What `./tide test` asks pytest for."""

from __future__ import annotations

from cli import test as command


def test_fast_starts_no_process_and_allows_no_server():
    words, environment = command.pytest_call(["--fast", "-x"], {})
    assert "not service and not embedded and not store and not web and not static" in words
    assert "--fast" not in words
    assert words[-1] == "-x"
    assert environment[command.SERVERS] == "no"


def test_all_of_it_allows_servers():
    words, environment = command.pytest_call(["tests/unit"], {})
    assert "-m" not in words[4:]
    assert environment[command.SERVERS] == "yes"


def test_the_shell_s_settings_reach_no_test():
    given = {"TIDE_ENV": "stack", "TIDE_SLICE_RECORDS": "1", "TIDE_STACK_KAFKA_PORT": "1", "HOME": "/h"}
    _, environment = command.pytest_call([], given)
    assert "TIDE_ENV" not in environment
    assert "TIDE_SLICE_RECORDS" not in environment
    assert environment["TIDE_STACK_KAFKA_PORT"] == "1"
    assert environment["HOME"] == "/h"


def test_help_runs_nothing(capsys):
    assert command.main(["--help"]) == 0
    assert "--fast" in capsys.readouterr().out
