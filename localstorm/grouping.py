"""Chooses the tasks that a tuple goes to, as Storm's groupings do.

A chooser takes a tuple's raw values and gives indices into the consumer's tasks (lowest task id first).
Equal field values always choose the same index, in every run and from every source.
"""

from collections.abc import Callable, Sequence
from zlib import crc32

import msgspec

from localstorm.errors import ProtocolError
from localstorm.wire import Values

Chooser = Callable[[Values], Sequence[int]]

NAMES = ("shuffle", "local_or_shuffle", "none", "fields", "all", "global", "direct")


def chooser(kind: str, tasks: int, positions: Sequence[int] = (), start: int = 0) -> Chooser | None:
    """The chooser of one grouping over `tasks` tasks; None for direct, where the emitter chooses.

    `positions` are the fields of a fields grouping; `start` is where shuffling begins. Local-or-shuffle and
    none are shuffle: all tasks are local.
    """
    if kind == "direct":
        return None
    if kind == "all":
        everyone = tuple(range(tasks))
        return lambda _values: everyone
    if kind == "global" or tasks == 1:
        first = (0,)
        return lambda _values: first
    if kind == "fields":
        return by_fields(tasks, tuple(positions))
    return in_turn(tasks, start)


def in_turn(tasks: int, start: int) -> Chooser:
    """One task after the other: an equal share for each."""
    turns = [(index,) for index in range(tasks)]
    state = start % tasks

    def choose(_values: Values) -> Sequence[int]:
        nonlocal state
        state = state + 1 if state + 1 < tasks else 0
        return turns[state]

    return choose


def by_fields(tasks: int, positions: tuple[int, ...]) -> Chooser:
    """By the value of some fields, compared as values and not as text (an escaped letter is the letter)."""
    decode = msgspec.json.Decoder(list[msgspec.Raw]).decode
    value = msgspec.json.Decoder().decode
    turns = [(index,) for index in range(tasks)]

    def choose(values: Values) -> Sequence[int]:
        fields = decode(values)
        try:
            key = [value(fields[position]) for position in positions]
        except IndexError:
            raise ProtocolError(
                f"emitted {len(fields)} values on a stream grouped by field {max(positions) + 1}"
            ) from None
        return turns[crc32(msgspec.json.encode(key, order="deterministic")) % tasks]

    return choose
