"""What the desk's commands share: their filters, and times as people say them."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated

import typer

from clicktide.errors import SettingError
from clicktide.retry.letters import Filter, checked_id

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)([smhd])\Z")

StageOption = Annotated[
    str | None, typer.Option(help="Only of this stage: parse, redis, mysql, mysql.17, poison.")
]
CodeOption = Annotated[str | None, typer.Option(help="Only with this error code.")]
SinceOption = Annotated[
    str | None, typer.Option(help="Only those that died since: 10m, 2h, 3d, or RFC 3339.")
]
UntilOption = Annotated[str | None, typer.Option(help="Only those that died before; as --since.")]
UserOption = Annotated[str | None, typer.Option(help="Only of this user_id.")]
TopicOption = Annotated[
    str | None, typer.Option(help="Only records first written to this topic: events, backfill.")
]


def span_s(text: str, option: str) -> float:
    """`10m` as seconds. Raises `SettingError`."""
    found = _SPAN.match(text.strip())
    if found is None:
        raise SettingError(f"{option}: expected a time span like 90s, 10m, 2h or 3d, got {text!r}")
    return float(found[1]) * _UNITS_S[found[2]]


def when_ms(text: str | None, option: str, now_ms: int) -> int:
    """`10m` (ago), or a date with time, as ms since the epoch; 0 for None. Raises `SettingError`."""
    if text is None:
        return 0
    if _SPAN.match(text.strip()):
        return now_ms - int(span_s(text, option) * 1000)
    try:
        return int(datetime.fromisoformat(text.strip()).astimezone().timestamp() * 1000)
    except ValueError:
        raise SettingError(
            f"{option}: expected 10m, 2h, 3d or a time like 2026-01-31T08:00:00Z, got {text!r}"
        ) from None


def filter_of(
    prefix: str,
    now_ms: int,
    ids: list[str] | None,
    stage: str | None,
    code: str | None,
    since: str | None,
    until: str | None,
    user: str | None,
    topic: str | None,
) -> Filter:
    """The filter that the options mean. Raises `SettingError`."""
    made = Filter(
        stage=stage,
        code=code,
        since=when_ms(since, "--since", now_ms),
        until=when_ms(until, "--until", now_ms),
        user=user,
        topic=None if topic is None else topic.removeprefix(prefix),
        ids=frozenset(checked_id(i, prefix) for i in ids or ()),
    )
    if made.until and made.until <= made.since:
        raise SettingError("--until: expected a time after --since")
    return made
