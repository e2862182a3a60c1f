"""`tide sparse`: streamparse's own command, with lein, storm and the environment found.

Arguments, output and exit code are streamparse's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from cli import given
from deploy.stack import debian
from deploy.stack.errors import StackError
from deploy.stack.process import descendants, every_process, record_of, stop
from deploy.stack.settings import StackSettings, settings_from
from deploy.storm import building
from deploy.storm.home import ensure_home
from deploy.storm.shell import official_storm, shell_variables, worker_environment

# Commands of streamparse that build a jar; `run` starts a Storm besides.
BUILDING = ("run", "submit", "jar")
STOP_SECONDS = 10
_POLL_SECONDS = 0.1


def sparse(args: list[str]) -> int:
    """Run `sparse` with ``args`` in the working directory; its exit code (130 after Ctrl-C)."""
    try:
        settings = settings_from(os.environ)
        environment = {**worker_environment(os.environ), **shell_variables(os.environ, settings)}
        if (chosen := _environment(args)) is not None:
            environment["TIDE_ENV"] = chosen  # topologies/parallelism.py reads it
            given.check(args, Path.cwd(), chosen)
        _make_ready(args, settings)
    except (StackError, given.SettingError) as error:
        print(f"tide sparse: {error}", file=sys.stderr)
        return 1
    command = [str(Path(sys.executable).with_name("sparse")), *args]
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if not _builds(args) or (args[0] == "run" and official_storm(os.environ) is not None):
            return _run(command, environment)
        with building.turn(Path.cwd(), _say) as end_turn, tempfile.TemporaryDirectory() as folder:
            taken = Path(folder, "waiting")
            taken.touch()
            return _run(command, {**environment, building.TAKEN: str(taken)}, taken, end_turn)
    except FileNotFoundError:
        print(
            f"tide sparse: {command[0]} is missing; install streamparse beside this Python", file=sys.stderr
        )
        return 1
    except KeyboardInterrupt:
        return 130


def _run(
    command: list[str],
    environment: dict[str, str],
    taken: Path | None = None,
    end_turn: Callable[[], None] | None = None,
) -> int:
    """Its exit code; `end_turn` is called once `taken` is gone. Ctrl-C ends all that it has started."""
    child = subprocess.Popen(command, env=environment)
    try:
        while taken is not None and end_turn is not None and child.poll() is None:
            if not taken.exists():
                end_turn()
                break
            time.sleep(_POLL_SECONDS)
        return _code(child.wait())
    except KeyboardInterrupt:
        _end(child)
        raise


def _builds(args: list[str]) -> bool:
    return bool(args) and args[0] in BUILDING and not {"-h", "--help"} & set(args)


def _environment(args: list[str]) -> str | None:
    """What -e or --environment says in streamparse's arguments."""
    for i, word in enumerate(args):
        if word in ("-e", "--environment"):
            return args[i + 1] if i + 1 < len(args) else None
        if word.startswith("--environment="):
            return word.partition("=")[2]
    return None


def _make_ready(args: list[str], settings: StackSettings) -> None:
    """Have lein, Java and a Storm, as far as the command needs them."""
    if not _builds(args):
        return
    needed = ["java", "lein"]
    running = args[0] == "run" and official_storm(os.environ) is None
    if running:
        debian.ensure({"storm"}, settings, _say)
        ensure_home(settings, _say)
    else:
        debian.ensure_programs(needed, _say)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End streamparse and what it started: a shell, `storm`, and the JVM that holds the local cluster."""
    left = [record_of(stat) for stat in descendants(every_process(), [child.pid])]
    stop(reversed(left), seconds=STOP_SECONDS)
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _code(returned: int) -> int:
    """A shell's way to tell of a signal: 128 and its number."""
    return 128 - returned if returned < 0 else returned


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(sparse(sys.argv[1:]))
