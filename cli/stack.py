"""`tide stack`: the real servers on this machine.

Each command ends with one clear line when it cannot do what was asked, and a non-zero code.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from deploy.stack.errors import StackError
from deploy.stack.settings import PROJECT, StackSettings, settings_from
from deploy.stack.stack import Stack
from deploy.storm.shell import shell_variables

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
        settings = _settings(data_dir)
        stack = Stack(settings, _say)
        names = _names(only)
        stack.up(names)
        if not names:
            _prepare(settings)
        for item in stack.chosen(names):
            print(f"{item.name:<12} {item.address}")


def _prepare(settings: StackSettings) -> None:
    """Make the topics and the tables, where this is the stack that config.json means."""
    ports = (settings.kafka_port, settings.redis_port, settings.mariadb_1_port, settings.mariadb_2_port)
    config = Path(os.environ.get("TIDE_CONFIG") or PROJECT / "config.json")
    options = json.loads(config.read_text("utf-8"))["envs"].get("stack", {}).get("options", {})
    told = " ".join(str(options.get(f"tide.{name}")) for name in ("kafka.bootstrap", "redis.url", "sql.dsns"))
    if not all(f":{port}" in told for port in ports):
        _say("other ports than config.json's: set its addresses, then run python -m deploy.prepare stack")
        return
    _say("topics and tables")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PROJECT), str(PROJECT / "src")])}
    command = [sys.executable, "-P", "-m", "deploy.prepare", "stack"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StackError(f"cannot make topics and tables: {(done.stderr.strip().splitlines() or ['?'])[-1]}")


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


@app.command()
def logs(
    name: Annotated[str, typer.Argument(help="a server, or `workers` for Storm's worker logs")],
    follow: Annotated[bool, typer.Option("-f", "--follow", help="go on until Ctrl-C")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, help="how many lines to begin with")] = 50,
    data_dir: DataDir = None,
) -> None:
    """The end of a server's log."""
    with plain_errors():
        found = Stack(_settings(data_dir)).log_files(name)
        raise typer.Exit(
            subprocess.call(["tail", f"-n{lines}", *(["-F"] if follow else []), *map(str, found)])
        )


@app.command()
def wipe(
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    data_dir: DataDir = None,
) -> None:
    """Delete all data, logs and settings of the stack; refused while a server runs. Downloads stay in the cache."""
    with plain_errors():
        stack = Stack(_settings(data_dir))
        stack.refuse_while_running()
        home = stack.settings.home
        if not home.exists():
            print(f"nothing to wipe: {home} is not there")
            return
        if not yes and not typer.confirm(
            f"Delete {home} with all topics, Redis data, tables and topologies?"
        ):
            print("nothing was deleted")
            raise typer.Exit(1)
        stack.wipe()
        print(f"deleted {home}")


@app.command()
def env(data_dir: DataDir = None) -> None:
    """Exports for a shell: eval "$(./tide stack env)"."""
    with plain_errors():
        for name, value in shell_variables(os.environ, _settings(data_dir)).items():
            print(f"export {name}={shlex.quote(value)}")


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
            "tide stack: interrupted",
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
