"""A topology as plain values: what runs, how many of it, and who hears whom.

`load` reads a streamparse project (see loading.py) and checks all that can be checked before a process is
started; what it returns can run.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from localstorm.errors import LocalStormError

RUNNER = "streamparse_run"
ACKER = "__acker"


class StreamPlan(msgspec.Struct, frozen=True):
    """One output stream."""

    fields: tuple[str, ...]
    direct: bool = False


class InputPlan(msgspec.Struct, frozen=True):
    """One subscription; `kind` is a name of grouping.NAMES."""

    component: str
    stream: str = "default"
    kind: str = "shuffle"
    fields: tuple[str, ...] = ()


class ComponentPlan(msgspec.Struct, frozen=True):
    """A spout or bolt: `par` tasks of one command."""

    name: str
    kind: str
    command: str
    script: str
    par: int = 1
    config: dict[str, object] = {}
    outputs: dict[str, StreamPlan] = {}
    inputs: tuple[InputPlan, ...] = ()

    @property
    def foreign(self) -> bool:
        """Whether it is not run by streamparse, so that nothing is known of how it writes JSON."""
        return self.command != RUNNER


class Plan(msgspec.Struct, frozen=True):
    """A whole topology."""

    name: str
    components: tuple[ComponentPlan, ...]
    conf: dict[str, object] = {}
    env: str | None = None
    serializer: str = "json"

    def tasks(self) -> dict[int, str]:
        """Task id -> component, numbered from 1 by component name as Storm does, ackers included."""
        ackers = self.conf.get("topology.acker.executors")
        counts = {component.name: component.par for component in self.components}
        counts[ACKER] = ackers if isinstance(ackers, int) else 1
        names = (name for name in sorted(counts) for _ in range(counts[name]))
        return dict(enumerate(names, start=1))

    def consumers(self, source: str) -> dict[str, dict[str, InputPlan]]:
        """Stream -> consuming component -> its subscription."""
        found: dict[str, dict[str, InputPlan]] = {}
        for component in self.components:
            for subscription in component.inputs:
                if subscription.component == source:
                    found.setdefault(subscription.stream, {})[component.name] = subscription
        return found

    def downstream(self, source: str) -> frozenset[str]:
        """All components that a tuple of `source` can lead to."""
        seen: set[str] = set()
        ahead = [source]
        while ahead:
            for consumers in self.consumers(ahead.pop()).values():
                ahead.extend(set(consumers) - seen)
                seen.update(consumers)
        return frozenset(seen)

    def number(self, key: str, default: float) -> float:
        """A numeric setting of the topology; `default` when it is absent or null."""
        return to_number(key, self.conf.get(key), default)


class Request(msgspec.Struct, frozen=True):
    """What to load: the options of `sparse run`."""

    project: Path
    name: str | None = None
    env: str | None = None
    options: tuple[str, ...] = ()
    config: Path | None = None
    override_name: str | None = None
    par: dict[str, int] = {}
    serializer: str | None = None


def to_number(key: str, value: object, default: float) -> float:
    """A setting as a number. Raises LocalStormError naming it."""
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise LocalStormError(f"{key} is {value!r}: expected a number")
    return value


def own_checkout() -> Path:
    """The folder that localstorm was imported from."""
    return Path(__file__).resolve().parent.parent


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of the component processes.

    PYTHONPATH loses the folders of localstorm's own checkout: no worker has them, and the `bolts` and
    `spouts` there would hide those of the project.
    """
    env = dict(environ)
    own = own_checkout()
    kept = []
    for entry in env.get("PYTHONPATH", "").split(os.pathsep):
        folder = Path(entry or ".").resolve()
        if entry and folder != own and own not in folder.parents:
            kept.append(entry)
    env["PYTHONPATH"] = os.pathsep.join(kept)
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", os.defpath)])
    return env


def load(request: Request) -> Plan:
    """The topology a project describes. Raises LocalStormError with one line for whatever is wrong."""
    if not request.project.is_dir():
        raise LocalStormError(f"no project folder {request.project}")
    project = request.project.resolve()
    config = request.config.resolve() if request.config else project / "config.json"
    with tempfile.TemporaryDirectory(prefix="localstorm-") as scratch:
        answer = Path(scratch) / "plan.json"
        wanted = {**msgspec.to_builtins(request, enc_hook=str), "answer": str(answer)}
        wanted |= {"project": str(project), "config": str(config)}
        script = Path(__file__).with_name("loading.py")
        # Its stdout is the project's to print to; it must not mix with ours.
        done = subprocess.run(
            [sys.executable, "-P", str(script), json.dumps(wanted)],
            env=child_environment(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if not answer.exists():
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise LocalStormError(f"the topology cannot be loaded: {last}")
        read = json.loads(answer.read_text())
    if "error" in read:
        raise LocalStormError(read["error"])
    plan = msgspec.convert(read["plan"], Plan)
    check(plan, project)
    return plan


def check(plan: Plan, project: Path) -> None:
    """Raises LocalStormError for what could not work once it runs."""
    if not (project / "src").is_dir():
        raise LocalStormError(f'the project has no "src" folder: {project / "src"} is what workers receive')
    if plan.serializer != "json":
        raise LocalStormError(
            f"serializer {plan.serializer!r}: localstorm speaks json (streamparse_run itself knows json and "
            "msgpack only; for another JSON codec see docs/localstorm.md)"
        )
    for component in plan.components:
        command_line(plan, component, project)
        if component.script.startswith("src."):
            raise LocalStormError(
                f"component {component.name!r} is {component.script}: workers receive the contents of src/, "
                f"so import it as {component.script.removeprefix('src.')}"
            )
        if component.par < 1:
            raise LocalStormError(f"component {component.name!r}: parallelism must be 1 or more")
        for key in ("topology.tick.tuple.freq.secs", "topology.max.spout.pending"):
            to_number(f"{component.name}: {key}", component.config.get(key), 0)
    for key in ("topology.message.timeout.secs", "topology.subprocess.timeout.secs"):
        if plan.number(key, 30) <= 0:
            raise LocalStormError(f"{key} must be more than 0")


def command_line(plan: Plan, component: ComponentPlan, project: Path) -> list[str]:
    """What starts one task of a component. Raises LocalStormError if there is no such command."""
    if not component.foreign:
        beside = Path(sys.executable).parent / RUNNER
        runner = [str(beside)] if beside.exists() else [sys.executable, "-P", "-m", "streamparse.run"]
        return [*runner, "-s", plan.serializer, component.script]
    found = shutil.which(component.command) or shutil.which(component.command, path=str(project / "src"))
    if found is None:
        raise LocalStormError(
            f"component {component.name!r}: its command {component.command!r} is not on PATH"
        )
    return [found, *shlex.split(component.script)]
