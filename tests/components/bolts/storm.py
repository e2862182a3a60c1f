"""Storm's side of the pipe, in memory: runs a component over scripted commands and answers what it said."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from clicktide.packing import pack, unpack

T = TypeVar("T")
Message = dict[str, Any]
Command = Message | Callable[[list[Message]], Message]


class Pipe:
    """What the component reads: each command when it asks for it. One that is callable gets what was said so far."""

    def __init__(self, commands: Iterable[Command]) -> None:
        self._commands = iter(commands)
        self._lines: deque[bytes] = deque()
        self.said = io.BytesIO()

    def readline(self) -> bytes:
        if not self._lines:
            command = next(self._commands, None)
            if command is None:
                return b""
            message = command(self.messages()) if callable(command) else command
            self._lines.extend([json.dumps(message).encode() + b"\n", b"end\n"])
        return self._lines.popleft()

    def messages(self) -> list[Message]:
        """Everything said so far; fails where it is not the protocol."""
        text = self.said.getvalue().decode()
        assert not text or text.endswith("\nend\n")
        return [json.loads(m) for m in text.split("\nend\n") if m]


def run(
    component: type,
    commands: Iterable[Command],
    folder: Path,
    conf: Message | None = None,
    name: str = "it",
    tasks: dict[int, str] | None = None,
) -> list[Message]:
    """What `component` says to `commands` after its handshake, log lines included. Leaves the process as it was."""
    handshake = {
        "conf": {"topology.name": "t", **(conf or {})},
        "pidDir": str(folder),
        "context": {
            "taskid": 1,
            "componentid": name,
            "task->component": {str(k): v for k, v in (tasks or {1: name}).items()},
        },
    }
    pipe = Pipe([handshake, *commands])
    stdout, root = sys.stdout, logging.getLogger()
    handlers = root.handlers[:]
    made = component(input_stream=pipe, output_stream=pipe.said, rdb_signal=None)
    made._exit = _leave
    try:
        made.run()
    except _Left:
        pass
    finally:
        sys.stdout = stdout
        root.handlers[:] = handlers
    pid, *rest = pipe.messages()
    assert pid == {"pid": made.pid}, "the first word is the process id"
    # Storm would parse and copy what is in arrays and objects, and Kryo would have to know their classes.
    assert all(isinstance(v, str | int | float) for m in of(rest, "emit") for v in m["tuple"])
    return rest


class _Left(BaseException):
    """The component ended because the pipe did."""


def _leave(status: int) -> None:
    assert status == 2
    raise _Left


def tuple_(value: Any, id_: str = "t1", stream: str = "default", component: str = "up") -> Message:
    """A tuple of one packed value of `slices`."""
    return {"id": id_, "comp": component, "stream": stream, "task": 7, "tuple": [pack(value)]}


def held(emit: Message, shape: type[T]) -> T:
    """What the tuple of an emit holds."""
    (text,) = emit["tuple"]
    return unpack(text, shape)


TICK = {"id": "tick", "comp": "__system", "stream": "__tick", "task": -1, "tuple": [2]}
HEARTBEAT = {"id": "beat", "comp": "__system", "stream": "__heartbeat", "task": -1, "tuple": []}
NEXT = {"command": "next"}


def of(messages: list[Message], *commands: str) -> list[Message]:
    return [m for m in messages if m.get("command") in commands]


def verdicts(messages: list[Message]) -> list[tuple[str, str]]:
    """(ack or fail, id), in order."""
    return [(m["command"], m["id"]) for m in of(messages, "ack", "fail")]
