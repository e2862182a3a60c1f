"""The entry of `./tide`: finds the command's module, loads only that, and runs it.

Promises: `--help` needs no command's module; an error that is the user's to mend is one line on standard error, never
a traceback (unless TIDE_DEBUG=1); exit codes are 0 for success, 1 for failure, 2 for wrong usage, 130 for Ctrl-C.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Command(NamedTuple):
    """One command: `target` is `module:attribute`, a typer app, a function for typer, or one that takes the arguments."""

    target: str
    group: str
    help: str
    raw: bool = False  # the function takes the arguments as they are and answers with the exit code


COMMANDS: dict[str, Command] = {
    "demo": Command(
        "cli.demo:main", "Start here", "Everything embedded, with sample traffic and a live page."
    ),
    "test": Command(
        "cli.test:main", "Start here", "Set up and run the tests; --fast for those without servers.", raw=True
    ),
    "doctor": Command("cli.doctor:main", "Start here", "What this machine has, what it lacks, what answers."),
    "local": Command("cli.local:main", "Run", "Any streamparse project's topology without a JVM.", raw=True),
    "serve": Command("cli.serve:app", "Run", "The services: collector, query, dashboard or all."),
    "stack": Command(
        "cli.stack:app", "Run", "The real stack on this machine: up, down, status, logs, wipe, env."
    ),
    "sparse": Command(
        "cli.sparse:sparse", "Run", "streamparse's own `sparse`, with lein and storm found.", raw=True
    ),
    "replay": Command("cli.replay:main", "Traffic and truth", "Replay user_log.csv or UserBehavior.csv."),
    "generate": Command(
        "cli.generate:main", "Traffic and truth", "Seeded open-loop traffic, with its truth in a file."
    ),
    "ledger": Command("cli.ledger:main", "Traffic and truth", "Hold a truth file against what is stored."),
    "lag": Command("cli.lag:main", "Operations", "How far the topologies are behind, by partition."),
    "dead": Command("retry.main:app", "Operations", "The retry desk: list, show, replay, purge."),
    "shards": Command(
        "cli.shards:app", "Operations", "Which DSN holds which logical shard: show, init, move."
    ),
    "erase": Command(
        "cli.erase:erase", "Operations", "Erase a user everywhere and for good, or take that back."
    ),
    "backfill": Command("cli.backfill:main", "Operations", "Process offset ranges again, then stop."),
    "bench": Command("bench.main:app", "Operations", "Benchmarks: throughput, latency, cost."),
    "chaos": Command(
        "cli.chaos:main", "Operations", "Faults on a seeded schedule, under traffic, judged by the ledger."
    ),
    "keys": Command("cli.keys:app", "Operations", "The services' keys: add, list, revoke, rotate."),
    "settings": Command("cli.settings:main", "Operations", "Every setting: name, default, unit, meaning."),
    "release": Command("cli.release:app", "Operations", "What a release needs."),
}


def available() -> dict[str, Command]:
    """The commands whose module is in this checkout."""
    return {name: c for name, c in COMMANDS.items() if _module_file(c.target).exists()}


def _module_file(target: str) -> Path:
    path = ROOT.joinpath(*target.partition(":")[0].split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def overview(commands: dict[str, Command]) -> str:
    """The text of `./tide --help`."""
    lines = [
        "Usage: ./tide COMMAND [OPTIONS]",
        "",
        "Clicktide: real-time shopper behaviour and orders on Apache Storm.",
    ]
    for group in dict.fromkeys(c.group for c in commands.values()):
        lines += ["", f"{group}:"]
        lines += [f"  {name:<10} {c.help}" for name, c in commands.items() if c.group == group]
    lines += [
        "",
        "./tide COMMAND --help says more of each. Whatever touches the log or the stores takes",
        "-e embedded | stack | cluster (default: TIDE_ENV, else embedded).",
    ]
    return "\n".join(lines)


def unknown(name: str, commands: dict[str, Command]) -> str:
    close = difflib.get_close_matches(name, commands, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "; ./tide --help lists them"
    return f"tide: no command {name!r}{hint}"


def main(args: list[str]) -> int:
    """Runs one command line; answers with its exit code."""
    commands = available()
    if not args or args[0] in ("-h", "--help", "help"):
        print(overview(commands))
        return 0
    if args[0] == "--version":
        print(f"clicktide {version()}")
        return 0
    name, rest = args[0], args[1:]
    if name not in commands:
        print(unknown(name, commands), file=sys.stderr)
        return 2
    return guarded(name, lambda: _run(name, commands[name], rest))


def version() -> str:
    import tomllib

    return str(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"])


def _run(name: str, command: Command, args: list[str]) -> int:
    module, _, attribute = command.target.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if command.raw:
        return int(found(args) or 0)
    answer = _typer_app(found)(args, prog_name=f"tide {name}", standalone_mode=False)
    return answer if isinstance(answer, int) else 0


def _typer_app(found: Any) -> Callable[..., Any]:
    import typer

    if isinstance(found, typer.Typer):
        return found
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(found)
    return app


def guarded(name: str, call: Callable[[], int]) -> int:
    """Runs `call`, turning every way it can end into one line and an exit code."""
    try:
        return call()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Nobody reads any more (`| head`): what is left in the buffer must not complain at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as e:
        if os.environ.get("TIDE_DEBUG") == "1":
            raise
        line, code = describe(e)
        if line:
            print(f"tide {name}: {line}", file=sys.stderr)
        return code


def describe(error: Exception) -> tuple[str, int]:
    """What to say of an error, in one line, and the exit code; ("", code) when it has said it itself."""
    from clicktide.errors import ClicktideError

    if isinstance(error, ClicktideError):
        return _one_line(str(error)), 1
    if isinstance(error, OSError) and error.strerror:
        place = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{place}", 1
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()  # type: ignore[attr-defined]
        return "", 2
    if "typer" in sys.modules:
        from typer.exceptions import Abort, TyperException

        if isinstance(error, TyperException):
            return f"{_one_line(error.format_message())} (see --help)", error.exit_code
        if isinstance(error, Abort):
            return "aborted", 1
    text = _one_line(str(error)) or "no more is known"
    return f"a fault in Clicktide, {type(error).__name__}: {text} (TIDE_DEBUG=1 shows where)", 1


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
