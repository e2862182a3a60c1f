"""Speaks Storm's multilang protocol over JSON: frames, commands from components, messages to them.

A tuple's values are kept as the raw bytes the component wrote; nothing decodes them unless a grouping must.
Messages end with a line `end`. All functions are pure; a `Framer` holds the unfinished tail of one pipe.
"""

from typing import cast

import msgspec

from localstorm.errors import ProtocolError

TAIL = b"}\nend\n"
"""Ends a tuple's message after its raw values."""

LARGE = 4096
"""From this size (bytes) an emit's envelope is cut out instead of being parsed."""

_ENVELOPE_WINDOW = 4096
_STYLES = (b'{"command": "emit", "tuple": ', b'{"command":"emit","tuple":')
_FIRST_KEYS = (b'"anchors":', b'"id":', b'"stream":', b'"task":', b'"need_task_ids":')
_NOTHING = msgspec.Raw()

MOST = 256 << 20
"""Bytes after which a message without an end is given up."""


class Emit(msgspec.Struct, tag="emit", tag_field="command", gc=False):
    tuple: msgspec.Raw
    id: msgspec.Raw = _NOTHING
    stream: str = "default"
    task: int | None = None
    anchors: list[str | int] = []
    need_task_ids: bool = True


class Ack(msgspec.Struct, tag="ack", tag_field="command", gc=False):
    id: str | int


class Fail(msgspec.Struct, tag="fail", tag_field="command", gc=False):
    id: str | int


class Sync(msgspec.Struct, tag="sync", tag_field="command", gc=False):
    pass


class Log(msgspec.Struct, tag="log", tag_field="command", gc=False):
    msg: object = ""
    level: int = 2


class Error(msgspec.Struct, tag="error", tag_field="command", gc=False):
    msg: object = ""


class Metrics(msgspec.Struct, tag="metrics", tag_field="command", gc=False):
    name: str
    params: object = None


class Pid(msgspec.Struct, gc=False):
    pid: int


class _Envelope(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """What surrounds the values of an emit."""

    id: msgspec.Raw = _NOTHING
    stream: str = "default"
    task: int | None = None
    anchors: list[str | int] = []
    need_task_ids: bool = True


Values = bytes | memoryview
"""A tuple's values as the JSON array a component wrote. It may hold newlines between its items: within JSON
no line can read `end`."""

Command = Emit | Ack | Fail | Sync | Log | Error | Metrics

_commands: msgspec.json.Decoder[Command] = msgspec.json.Decoder(Command)
_envelopes = msgspec.json.Decoder(_Envelope)
_pids = msgspec.json.Decoder(Pid)


class Framer:
    """Cuts the byte stream of one pipe into messages, without their closing `end` line."""

    __slots__ = ("_parts", "_size")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that `data` completes, in order. Raises ProtocolError when none ever ends."""
        # find() of a single byte runs at memory speed, of a longer needle some 50 times slower:
        # look for the newline first and compare what follows.
        if b"\n" not in data:
            self._parts.append(data)
            self._size += len(data)
            if self._size > MOST:
                raise ProtocolError(f"wrote {self._size >> 20} MiB to its stdout without ending a message")
            return []
        if self._parts:
            self._parts.append(data)
            data = b"".join(self._parts)
            self._parts.clear()
            self._size = 0
        messages = []
        start = at = 0
        while (newline := data.find(b"\n", at)) >= 0:
            at = newline + 1
            if data.startswith(b"end\n", at):
                messages.append(data[start:newline])
                start = at = at + 4
        if start < len(data):
            self._parts.append(data[start:] if start else data)
        return messages

    def rest(self) -> bytes:
        """What came after the last whole message."""
        return b"".join(self._parts)


def decode(message: bytes, *, foreign: bool = False) -> Command:
    """The command a component sent. Large emits of pystorm (not `foreign`) are cut, not parsed.

    Raises ProtocolError with what was sent, shortened, if it is none of the protocol's commands.
    """
    if len(message) >= LARGE and not foreign:
        emit = cut_emit(message)
        if emit is not None:
            return emit
    try:
        return _commands.decode(message)
    except msgspec.DecodeError as error:
        raise ProtocolError(describe_garbage(message, error)) from None


def cut_emit(message: bytes) -> Emit | None:
    """An emit with its values cut out by position, or None where only a parser can tell.

    pystorm writes the command, the values, then the envelope in the order of _FIRST_KEYS. Everything from the envelope's first
    key to the end must itself parse as the rest of an object. A key found deeper inside the values
    leaves a closing bracket too many, and an unescaped quote cannot stand inside a string, so a tail
    that parses is the envelope.
    """
    for style in _STYLES:
        if message.startswith(style):
            break
    else:
        return None
    for key in _FIRST_KEYS:
        at = len(message)
        while (at := message.rfind(key, max(0, len(message) - _ENVELOPE_WINDOW), at)) >= 0:
            try:
                envelope = _envelopes.decode(b"{" + message[at:])
            except msgspec.DecodeError:
                continue
            close = message.rfind(b"]", len(style), at)
            if not message.startswith(b"[", len(style)) or message[close + 1 : at].strip(b", "):
                return None
            return Emit(
                cast(msgspec.Raw, memoryview(message)[len(style) : close + 1]),
                envelope.id,
                envelope.stream,
                envelope.task,
                envelope.anchors,
                envelope.need_task_ids,
            )
    return None


def decode_pid(message: bytes) -> int:
    """The process id that answers the handshake. Raises ProtocolError."""
    try:
        return _pids.decode(message).pid
    except msgspec.DecodeError as error:
        raise ProtocolError(describe_garbage(message, error)) from None


def describe_garbage(message: bytes, error: Exception) -> str:
    """One line that says what a component wrote instead of a command."""
    text = message.decode("utf-8", "replace").strip()
    shown = text if len(text) <= 200 else text[:200] + "..."
    hint = "" if text.startswith("{") else " (a print() while the module is imported does that)"
    return f"wrote to its stdout what is no multilang command{hint}: {shown!r}: {error}"


def encode(message: object) -> bytes:
    """A whole message to a component."""
    return msgspec.json.encode(message) + b"\nend\n"


def tuple_middle(component: str, stream: str, task: int) -> bytes:
    """The constant part of a tuple's message, between its id and its values."""
    name, stream_name = msgspec.json.encode(component), msgspec.json.encode(stream)
    return b'","comp":%b,"stream":%b,"task":%d,"tuple":' % (name, stream_name, task)


NEXT = encode({"command": "next"})
ACTIVATE = encode({"command": "activate"})
DEACTIVATE = encode({"command": "deactivate"})
HEARTBEAT = encode({"id": "0", "comp": "__system", "stream": "__heartbeat", "task": -1, "tuple": []})


def tick(seconds: float) -> bytes:
    """A tick tuple; its id 0 is never tracked."""
    return encode({"id": "0", "comp": "__system", "stream": "__tick", "task": -1, "tuple": [seconds]})


def outcome(command: str, message_id: bytes) -> bytes:
    """The ack or fail a spout gets, with its message id exactly as it wrote it."""
    return b'{"command":"%b","id":%b}\nend\n' % (command.encode(), message_id)
