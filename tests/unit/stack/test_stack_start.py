"""Starting: what becomes of servers that were begun when another one fails."""

from dataclasses import replace
from pathlib import Path

import pytest

from deploy.stack.errors import StackError
from deploy.stack.servers.base import Server
from deploy.stack.settings import settings_from
from deploy.stack.stack import Stack


@pytest.mark.parametrize(
    ("error", "left"),
    [
        (StackError("mariadb-1 ended while starting"), ["redis"]),
        (FileNotFoundError("data"), ["redis"]),
        (KeyboardInterrupt(), []),
    ],
)
def test_nothing_is_left_half_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, left: list[str]
) -> None:
    """A server that answers already stays, unless whoever waits breaks it off."""
    stack = Stack(replace(settings_from({"HOME": "/h"}), home=tmp_path))
    redis, first, second = (stack.server(name).server for name in ("redis", "mariadb-1", "mariadb-2"))
    running: list[str] = []

    def launch(item: Server) -> None:
        if item is second:
            raise error
        running.append(item.name)

    def stop(items: list[Server]) -> None:
        for item in items:
            running.remove(item.name)

    monkeypatch.setattr(stack, "launch", launch)
    monkeypatch.setattr(stack, "_stop", stop)
    monkeypatch.setattr(type(redis), "answers", lambda _: True)
    monkeypatch.setattr(type(first), "answers", lambda _: False)
    # Begun only after redis has answered once.
    monkeypatch.setattr(type(second), "after", ("redis",))
    with pytest.raises(type(error)):
        stack._start([redis, first, second], {"redis", "mariadb-1", "mariadb-2"})
    assert running == left


def test_a_server_that_ran_before_and_was_slow_to_answer_is_not_stopped_with_another_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = Stack(replace(settings_from({"HOME": "/h"}), home=tmp_path))
    slow, fails = (stack.server(name).server for name in ("mariadb-1", "mariadb-2"))
    stopped: list[str] = []

    def launch(item: Server) -> None:
        if item is fails:
            raise StackError("mariadb-2 ended while starting")

    monkeypatch.setattr(stack, "launch", launch)
    monkeypatch.setattr(stack, "_stop", lambda items: stopped.extend(item.name for item in items))
    monkeypatch.setattr(type(slow), "answers", lambda _: False)
    monkeypatch.setattr("deploy.stack.stack.is_alive", lambda record: record == "mariadb-1")
    monkeypatch.setattr(stack, "record", lambda item: item.name)
    with pytest.raises(StackError):
        stack._start([slow, fails], {"mariadb-1", "mariadb-2"})
    assert stopped == []
