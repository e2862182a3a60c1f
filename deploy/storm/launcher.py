"""The `storm` command where no official Storm is installed: the verbs that people and streamparse use.

It runs Storm's own classes from the laid-out STORM_HOME. Needs nothing but the standard library and Java.
Standard output belongs to the verb; streamparse reads the version from it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from deploy.stack.errors import StackError
from deploy.stack.java import java_argv
from deploy.stack.settings import StackSettings, settings_from
from deploy.storm.building import take
from deploy.storm.home import STORM_VERSION, ensure_home
from deploy.storm.loopback import loopback_environment
from deploy.storm.shell import component_environment

FLUX = "org.apache.storm.flux.Flux"
LOCAL_CLUSTER = "org.apache.storm.LocalCluster"
COMMAND = "org.apache.storm.command."
COMMANDS = {
    "list": "ListTopologies",
    "kill": "KillTopology",
    "rebalance": "Rebalance",
    "activate": "Activate",
    "deactivate": "Deactivate",
    "get-errors": "GetErrors",
    "set_log_level": "SetLogLevel",
}
CLIENT_HEAP_MB = 128
LOCAL_HEAP_MB = 512
# LocalCluster multiplies by 1000 in 32 bits' company; ten days is for ever in local mode.
LONGEST_LOCAL_SECONDS = 10 * 24 * 3600

USAGE = """\
usage: storm VERB ...

  version                              the version, as `Storm X.Y.Z`
  jar JAR CLASS [ARG...]               run CLASS against the cluster; Flux with --local runs in local mode
  local [--local-ttl SECONDS] JAR CLASS [ARG...]   run CLASS in local mode
  list                                 the topologies of the cluster
  kill NAME [-w SECONDS]
  rebalance NAME [-w SECONDS] [-n WORKERS] [-e COMPONENT=EXECUTORS]...
  activate NAME | deactivate NAME
  get-errors NAME | set_log_level ...
  logs [NAME] [-f] [-n LINES]          the worker logs of a topology, or of all of them
"""


def split_flux_local(arguments: Sequence[str]) -> tuple[list[str], int] | None:
    """A Flux call for local mode without its local flags, and its seconds; None for any other call.

    Flux of Storm 2 has no local mode of its own and would submit to a cluster.
    """
    if FLUX not in arguments or not {"--local", "-l"} & set(arguments):
        return None
    kept: list[str] = []
    seconds = LONGEST_LOCAL_SECONDS
    items = iter(arguments)
    for item in items:
        if item in ("--local", "-l"):
            continue
        if item in ("--sleep", "-s"):
            seconds = local_seconds(next(items, ""))
        elif item.startswith("--sleep="):
            seconds = local_seconds(item.partition("=")[2])
        else:
            kept.append(item)
    return kept, seconds


def local_seconds(text: str) -> int:
    """How long local mode runs: whole seconds, at least 1, capped. Raises StackError on anything else."""
    if not text.isdigit():
        raise StackError(f"local mode: {text!r} is no number of seconds")
    return max(1, min(int(text), LONGEST_LOCAL_SECONDS))


def local_argv(home: Path, jar: str, arguments: Sequence[str], seconds: int) -> list[str]:
    """Run a class in local mode. The topology's jar comes first: the first jar with resources/ wins."""
    return java_argv(
        LOCAL_CLUSTER,
        heap_mb=LOCAL_HEAP_MB,
        class_path=[jar, f"{home / 'lib'}/*", str(home / "conf")],
        properties={
            **jar_properties(jar),
            "storm.local.sleeptime": str(seconds),
            "java.util.logging.config.file": str(home / "conf" / "logging.properties"),
            "storm.home": str(home),
            "log4j2.configurationFile": f"file:{home / 'log4j2' / 'local.xml'}",
        },
        arguments=list(arguments),
    )


def jar_argv(home: Path, jar: str, arguments: Sequence[str]) -> list[str]:
    """Run a class of a jar against the cluster; StormSubmitter uploads that jar."""
    main, *rest = arguments
    return client_argv(home, main, rest, first=[jar], properties=jar_properties(jar))


def jar_properties(jar: str) -> dict[str, str]:
    """How StormSubmitter learns which jar the topology comes in."""
    return {"storm.jar": jar, "storm.dependency.jars": "", "storm.dependency.artifacts": "{}"}


def client_argv(
    home: Path,
    main: str,
    arguments: Sequence[str],
    *,
    first: Sequence[str] = (),
    properties: dict[str, str] | None = None,
) -> list[str]:
    """Run a class that talks to Nimbus."""
    return java_argv(
        main,
        heap_mb=CLIENT_HEAP_MB,
        class_path=[*first, f"{home / 'lib'}/*", str(home / "conf")],
        properties={
            **(properties or {}),
            "storm.home": str(home),
            "log4j2.configurationFile": f"file:{home / 'log4j2' / 'local.xml'}",
        },
        arguments=list(arguments),
    )


def main(arguments: Sequence[str]) -> int:
    """One call of the command; its exit code. Replaces this process where Java has the last word."""
    if not arguments or arguments[0] in ("help", "-h", "--help"):
        print(USAGE, end="")
        return 0 if arguments else 2
    verb, *rest = arguments
    if verb == "version":
        print(f"Storm {STORM_VERSION}")
        return 0
    try:
        settings = settings_from(os.environ)
        if verb == "logs":
            return _logs(settings, rest)
        _become(_call(settings, verb, rest), settings)
    except StackError as error:
        print(f"storm: {error}", file=sys.stderr)
        return 1


def _call(settings: StackSettings, verb: str, rest: list[str]) -> list[str]:
    """The java command of a verb."""
    home: Callable[[], Path] = lambda: ensure_home(settings, _say)  # noqa: E731 - only once the verb is known
    jar: Callable[[str], str] = lambda path: take(_jar(path), settings.folder("jars-in-use"), os.environ)  # noqa: E731
    if verb in COMMANDS:
        return client_argv(home(), COMMAND + COMMANDS[verb], rest)
    if verb == "local" and rest[:1] == ["--local-ttl"]:
        _require(rest, 4, "storm local [--local-ttl SECONDS] JAR CLASS [ARG...]")
        return local_argv(home(), jar(rest[2]), rest[3:], local_seconds(rest[1]))
    if verb == "local":
        _require(rest, 2, "storm local [--local-ttl SECONDS] JAR CLASS [ARG...]")
        return local_argv(home(), jar(rest[0]), rest[1:], 20)
    if verb == "jar":
        _require(rest, 2, "storm jar JAR CLASS [ARG...]")
        flux = split_flux_local(rest[1:])
        if flux is not None:
            return local_argv(home(), jar(rest[0]), *flux)
        return jar_argv(home(), jar(rest[0]), rest[1:])
    raise StackError(f"no verb {verb!r}; `storm help` lists them")


def _become(argv: list[str], settings: StackSettings) -> NoReturn:
    if shutil.which(argv[0]) is None:
        raise StackError("Java is missing; as root on Debian: apt-get install default-jre-headless")
    environment = loopback_environment(component_environment(os.environ), settings)
    sys.stdout.flush()
    os.execvpe(argv[0], argv, environment)  # noqa: S606 - signals reach Java itself


def _logs(settings: StackSettings, rest: list[str]) -> int:
    """tail(1) of the worker logs of one topology, the newest run of it, or of all."""
    names = [
        item
        for index, item in enumerate(rest)
        if not item.startswith("-") and rest[index - 1 : index] != ["-n"]
    ]
    options = [item for item in rest if item not in names]
    pattern = f"{names[0]}-*-*" if names else "*"
    found = sorted(settings.folder("logs", "workers").glob(f"{pattern}/*/worker.log"))
    if not found:
        raise StackError(f"no worker logs of {names[0] if names else 'any topology'}")
    try:
        return subprocess.call(["tail", *options, *map(str, found)])
    except KeyboardInterrupt:
        return 130


def _jar(path: str) -> str:
    if not Path(path).is_file():
        raise StackError(f"{path}: no such jar")
    return path


def _require(rest: Sequence[str], count: int, usage: str) -> None:
    if len(rest) < count:
        raise StackError(f"usage: {usage}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
