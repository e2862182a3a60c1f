"""What the desk prints: a table, one record's page, JSON."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from clicktide.retry.letters import Key, Letter, replays_of
from retry.desk import plain

_SHOWN_BYTES = 4096


@dataclass(slots=True)
class Found:
    """The newest letters, oldest of them first; `times` how often each died, `total` how many records there are in all."""

    letters: list[Letter] = field(default_factory=list)
    times: dict[Key, int] = field(default_factory=dict)
    total: int = 0

    @property
    def distinct(self) -> int:
        return len(self.times)


def newest(letters: Iterable[Letter], limit: int) -> Found:
    """Each key once, the `limit` that died last (0: all). Keeps no more letters than that."""
    found = Found()
    kept: dict[Key, Letter] = {}
    for letter in letters:
        found.total += 1
        found.times[letter.key] = found.times.get(letter.key, 0) + 1
        before = kept.get(letter.key)
        if before is None or _age(before) <= _age(letter):
            kept[letter.key] = letter
        if limit and len(kept) > 2 * limit + 100:
            kept = {x.key: x for x in heapq.nlargest(limit, kept.values(), key=_age)}
    ordered = sorted(kept.values(), key=_age)
    found.letters = ordered[-limit:] if limit else ordered
    return found


def _age(letter: Letter) -> tuple[int, int, int]:
    return (letter.record.timestamp, letter.record.partition, letter.record.offset)


def json_lines(found: Found, *, values: bool) -> Iterator[str]:
    for letter in found.letters:
        made = {**letter.as_dict(value=values), "times": found.times[letter.key]}
        yield json.dumps(made, ensure_ascii=False)


def table(found: Found) -> None:
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    console = Console() if Console().is_terminal else Console(width=160)
    made = Table(
        Column("id", no_wrap=True),
        Column("died (UTC)", no_wrap=True),
        Column("stage", no_wrap=True),
        Column("code", no_wrap=True),
        Column("user", max_width=16, overflow="ellipsis"),
        Column("replays", justify="right"),
        Column("error", overflow="fold"),  # the one that gives way on a narrow terminal
    )
    for letter in found.letters:
        e = letter.envelope
        cells = (
            letter.id,
            plain(letter.record.timestamp),
            e.stage,
            e.code,
            letter.user or "-",
            str(replays_of(e.replay_id)),
            e.error,
        )
        made.add_row(*(Text(printable(c)) for c in cells))
    if found.letters:
        console.print(made)
    shown = len(found.letters)
    more = f", the newest {shown} shown" if shown < found.distinct else ""
    console.print(f"{found.distinct:,} dead letters{more}", highlight=False)


def one(name: str, found: list[Letter], past: list[dict[str, Any]]) -> dict[str, Any]:
    """One record for scripts: all its letters, oldest first, and its audit trail."""
    letters = [
        {**x.as_dict(value=True), "headers": {n: v.decode("utf-8", "replace") for n, v in x.record.headers}}
        for x in found
    ]
    return {"id": name, "letters": letters, "audit": past}


def page(name: str, found: list[Letter], past: list[dict[str, Any]]) -> None:
    if not found:
        print(f"{name}: no dead letter (any more)")
    for number, letter in enumerate(found, 1):
        e = letter.envelope
        print(
            f"{name}, dead letter {number} of {len(found)}, at {letter.record.partition}:{letter.record.offset} of dead"
        )
        facts = {
            "user": letter.user or "-",
            "written": plain(e.origin.timestamp),
            "first failed": plain(e.first_failed_at),
            "died": plain(letter.record.timestamp),
            "stage": e.stage,
            "class, code": f"{e.kind}, {e.code}",
            "error": e.error,
            "attempts": str(e.attempt),
            "replays": f"{replays_of(e.replay_id)} {e.replay_id}".strip(),
        }
        for label, text in facts.items():
            print(f"  {label:<14}{printable(text)}")
        print("  headers")
        for header, value in letter.record.headers:
            print(f"    {printable(header)}: {printable(value.decode('utf-8', 'backslashreplace'))}")
        value = letter.record.value
        print(f"  {len(value)} bytes" + (f", the first {_SHOWN_BYTES}" if len(value) > _SHOWN_BYTES else ""))
        print(f"    {printable(value[:_SHOWN_BYTES].decode('utf-8', 'backslashreplace'))}")
    if past:
        print("audit trail")
        for entry in past:
            edited = ", edited" if entry.get("edited") else ""
            print(
                f"  {plain(entry.get('at'))} {entry.get('action')} by {entry.get('by')}, run {entry.get('run')}{edited}"
            )


def printable(text: str) -> str:
    """Without what a terminal would take for orders."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
