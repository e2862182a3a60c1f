"""`tide stack`: the real servers on this machine.

Each command ends with one clear line when it cannot do what was asked, and a non-zero code.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from deploy.stack.errors import StackError
from deploy.stack.settings import StackSettings, settings_from
from deploy.stack.stack import Stack

app = typer.Typer(
    help="The real stack on this machine: Kafka, Redis, two MariaDB servers, Apache Storm.",
    no_args_is_help=True,
    add_completion=False,
)

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="where all of it lives (default: .stack in the project)"),
]
Only = Annotated[
    str,
    typer.Option(
        "--only",
        help="some of kafka, redis, mariadb, storm (or single servers), with commas",
    ),
]


@app.command()
def up(only: Only = "", data_dir: DataDir = None) -> None:
    """Start what does not run, wait until each server answers, print the addresses."""
    with plain_errors():
        stack = Stack(_settings(data_dir), _say)
        names = _names(only)
        stack.up(names)
        for item in stack.chosen(names):
            print(f"{item.name:<12} {item.address}")


@app.command()
def down(only: Only = "", data_dir: DataDir = None) -> None:
    """Stop the servers and everything that they started; their data stays."""
    with plain_errors():
        stopped = Stack(_settings(data_dir), _say).down(_names(only))
        print("stopped: " + ", ".join(stopped) if stopped else "nothing was running")


@app.command()
def status(data_dir: DataDir = None) -> None:
    """Each server: up or down, process id, address, resident memory, uptime. Exit code 1 unless all are up."""
    with plain_errors():
        lines = Stack(_settings(data_dir)).status()
        print(f"{'server':<12} {'state':<9} {'pid':>8}  {'address':<18} {'MiB':>6} {'uptime':>10}")
        for line in lines:
            pid = line.pid or "-"
            print(
                f"{line.name:<12} {line.state:<9} {pid:>8}  {line.address:<18} "
                f"{line.rss / 2**20:>6.0f} {_duration(line.uptime):>10}"
            )
        if any(line.state != "up" for line in lines):
            raise typer.Exit(1)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn the stack's errors into one line and exit code 1, Ctrl-C into exit code 130."""
    try:
        yield
    except StackError as error:
        print(f"tide stack: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    except PermissionError as error:
        print(f"tide stack: {error.filename}: permission denied", file=sys.stderr)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        print(
            "tide stack: interrupted; what was started runs on, see `tide stack status`",
            file=sys.stderr,
        )
        raise typer.Exit(130) from None


def _settings(data_dir: Path | None) -> StackSettings:
    return settings_from(os.environ, home=data_dir)


def _names(only: str) -> list[str]:
    return [name.strip() for name in only.split(",") if name.strip()]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if seconds else "-"


if __name__ == "__main__":
    app()
