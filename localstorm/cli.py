"""`python -m localstorm`: runs a streamparse topology without a JVM, with the options of `sparse run`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from localstorm.errors import LocalStormError
from localstorm.plan import Request, load
from localstorm.reporting import Console, PlainConsole
from localstorm.runner import run
from localstorm.settings import Settings


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """Ends the program with code 2."""
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def parser(prog: str = "python -m localstorm") -> argparse.ArgumentParser:
    """The command line; its help is the manual's option list."""
    made = OneLineParser(prog=prog, description=__doc__, allow_abbrev=False)
    add = made.add_argument
    add("-n", "--name", help="topology to run; not needed if the project has only one")
    add("--project", type=Path, default=Path(), metavar="DIR", help="streamparse project (default: here)")
    add("-e", "--environment", metavar="ENV", help="environment of config.json; not needed if there is one")
    add("-o", "--option", action="append", default=[], metavar="KEY=VALUE", help="Storm option; repeatable")
    add("-t", "--time", type=seconds, default=0.0, metavar="SECONDS", help="end after this time (0: Ctrl-C)")
    add("-w", "--workers", type=int, metavar="N", help="topology.workers (components see it; all is local)")
    add("-a", "--ackers", type=int, metavar="N", help="topology.acker.executors; 0 acks without tracking")
    add("--par", action="append", default=[], metavar="COMPONENT=N", help="tasks of a component; repeatable")
    add("--config", type=Path, metavar="FILE", help="instead of the project's config.json")
    add("-N", "--override_name", metavar="NAME", help="name the running topology NAME")
    add("-s", "--serializer", metavar="NAME", help="as config.json's serializer (json)")
    add("-d", "--debug", action="store_true", help="set topology.debug: components log at debug level")
    add("--log-dir", type=Path, metavar="DIR", help="one log a task (default: PROJECT/logs)")
    add("--stats-file", type=Path, metavar="FILE", help="write statistics and pids as JSON each second")
    add(
        "--drain",
        type=seconds,
        default=10.0,
        metavar="SECONDS",
        help="at the end, wait for acks (default 10)",
    )
    add("--max-restarts", type=int, metavar="N", help="give up when a task died more than N times")
    show = made.add_mutually_exclusive_group()
    show.add_argument("--table", action="store_true", help="live table, also where stdout is no terminal")
    show.add_argument("--quiet", action="store_true", help="warnings and errors only")
    return made


def seconds(text: str) -> float:
    """A duration; as with `sparse run`, less than 0 is 0."""
    value = float(text)
    if not value < 1e9:
        raise ValueError(text)
    return max(0.0, value)


def parallelism(pairs: Sequence[str]) -> dict[str, int]:
    """--par options. Raises LocalStormError."""
    found = {}
    for pair in pairs:
        name, _, number = pair.partition("=")
        if not name or not number.isdecimal() or int(number) < 1:
            raise LocalStormError(f"--par {pair}: expected COMPONENT=N with N from 1")
        found[name] = int(number)
    return found


def request_of(args: argparse.Namespace) -> Request:
    """What to load."""
    options = list(args.option)
    if args.workers is not None:
        options.append(f"topology.workers={args.workers}")
    if args.ackers is not None:
        options.append(f"topology.acker.executors={args.ackers}")
    if args.debug:
        options.append("topology.debug=true")
    return Request(
        project=args.project,
        name=args.name,
        env=args.environment,
        options=tuple(options),
        config=args.config,
        override_name=args.override_name,
        par=parallelism(args.par),
        serializer=args.serializer,
    )


def console_of(args: argparse.Namespace) -> Console:
    """A table on a terminal, lines elsewhere."""
    if args.table or (sys.stdout.isatty() and not args.quiet):
        from localstorm.table import TableConsole  # rich is slow to import

        return TableConsole()
    return PlainConsole(quiet=args.quiet)


def main(argv: Sequence[str] | None = None, prog: str = "python -m localstorm") -> int:
    """Runs the command line; returns the exit code (0 ended as asked, 1 gave up, 2 could not start)."""
    args = parser(prog).parse_args(argv)
    try:
        plan = load(request_of(args))
        settings = Settings(
            plan=plan,
            project=args.project.resolve(),
            log_dir=args.log_dir or args.project.resolve() / "logs",
            duration=args.time,
            drain=args.drain,
            max_restarts=args.max_restarts,
            stats_file=args.stats_file,
        )
        run(settings, console_of(args))
    except LocalStormError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0
