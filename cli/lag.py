"""`./tide lag`: how far the topologies are behind, by topic and partition."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from cli.context import DataDirOption, EnvOption, settings_for
from clicktide import keys, topics
from clicktide.errors import SettingError, StoreUnavailable
from clicktide.settings import Settings
from deploy.embedded.progress import READ_BY_TOPOLOGIES, Position, positions


def main(
    env: EnvOption = "embedded",
    data_dir: DataDirOption = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a partition and line.")] = False,
) -> int:
    """How far the topologies are behind: end, committed and done offset, and lag of each partition."""
    settings = settings_for(env, data_dir)
    if env == "embedded" and not Path(settings.text("log.path")).exists():
        raise SettingError(f"there is no log at {settings.text('log.path')}; ./tide demo makes one")
    found = read(settings)
    if not found:
        raise SettingError(f"the log has no topics named {settings.text('topics.prefix')}*")
    if as_json:
        print_json(found)
    else:
        print_table(found)
    return 0


def read(settings: Settings) -> list[Position]:
    """The partitions of the topics that topologies read; raises `LogUnavailable` when the log is away."""
    from clicktide.log import open_log

    prefix = settings.text("topics.prefix")
    admin = open_log(settings).admin()
    try:
        names = [prefix + name for name in (*READ_BY_TOPOLOGIES, topics.DEAD)]
        return positions(admin, settings.text("group"), names, lambda topic: _published(settings, topic))
    finally:
        admin.close()


def _published(settings: Settings, topic: str) -> Mapping[str, str]:
    """What the spouts have published; nothing while Redis is away: the committed offsets are there without it."""
    from redis.exceptions import RedisError

    from clicktide.redisstore.client import connect

    try:
        client = connect(settings)
        answer = client.hgetall(keys.spouts(settings.text("redis.namespace"), topic))
    except (RedisError, StoreUnavailable, OSError):
        return {}
    return {_text(k): _text(v) for k, v in answer.items()}


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def print_json(found: list[Position]) -> None:
    import json

    for p in found:
        line = {"topic": p.topic, "partition": p.partition, "earliest": p.earliest, "end": p.end}
        print(json.dumps({**line, "committed": p.committed, "done": p.done, "lag": p.lag}))


def print_table(found: list[Position]) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    table = Table(
        Column("topic", no_wrap=True),
        "partition",
        *(Column(n, justify="right") for n in ("earliest", "end", "committed", "done", "lag")),
    )
    for topic in dict.fromkeys(p.topic for p in found):
        of_topic = [p for p in found if p.topic == topic]
        read_by_nobody = topic.endswith(topics.DEAD)
        for p in of_topic if any(p.end for p in of_topic) else ():
            lag = "" if read_by_nobody else f"{p.lag:,}"
            table.add_row(
                topic,
                str(p.partition),
                f"{p.earliest:,}",
                f"{p.end:,}",
                _offset(p.committed),
                _offset(p.done),
                lag,
            )
        total = "" if read_by_nobody else f"{sum(p.lag for p in of_topic):,}"
        records = sum(p.end - p.earliest for p in of_topic)
        table.add_row(topic, "all", "", f"{records:,} kept", "", "", total, style="bold", end_section=True)
    console = Console()
    console.print(table, width=None if console.is_terminal else 120)


def _offset(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
