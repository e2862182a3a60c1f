"""`./tide chaos`: faults on a seeded schedule against a Clicktide of its own, under traffic, judged by the ledger.

Promises: what it kills and stops was started by it; nothing is left running; exit code 0 only if every run passed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from bench.chaos import plan
from bench.chaos.report import Outcome, table
from bench.chaos.runner import Place
from bench.chaos.traffic import Load
from cli.context import ROOT, EnvOption, config_file, data_dir, settings_for
from clicktide.errors import SettingError

_MARK = "chaos.json"


def main(
    env: EnvOption = "embedded",
    seed: Annotated[int, typer.Option(help="Of the first run; the following ones count up.", min=0)] = 1,
    seconds: Annotated[float, typer.Option(help="Of traffic and faults in a run.", min=5, max=86400)] = 60,
    rate: Annotated[float, typer.Option(help="Records a second.", min=10, max=20_000)] = 500,
    faults: Annotated[
        str, typer.Option(help=f"Some of {', '.join(plan.KINDS)}, with commas.  [default: all]")
    ] = "",
    only: Annotated[
        str,
        typer.Option("--targets", help="Only these, with commas, as `--plan` names them.  [default: all]"),
    ] = "",
    runs: Annotated[int, typer.Option(help="Runs, each with the next seed.", min=1, max=1000)] = 1,
    file: Annotated[Path | None, typer.Option(help="Replay this user_log.csv besides.")] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--data-dir", help="Its own data: a folder for each run.  [default: .tide/chaos]"),
    ] = None,
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the data of runs that passed, too.")] = False,
    list_only: Annotated[bool, typer.Option("--plan", help="Print the schedules and end.")] = False,
) -> int:
    """Kill, stop, lock and roll back everything on a seeded schedule; exit 0 only if nothing was lost or doubled."""
    kinds = [kind.strip() for kind in faults.split(",") if kind.strip()] or list(plan.KINDS)
    if unknown := [kind for kind in kinds if kind not in plan.KINDS]:
        raise SettingError(
            f"--faults: unknown fault {unknown[0]!r}; expected some of {', '.join(plan.KINDS)}"
        )
    if file is not None and not (file.is_file() and os.access(file, os.R_OK)):
        raise SettingError(f"--file {file}: expected a file that can be read")
    if env not in ("embedded", "stack"):
        raise SettingError(f"-e {env}: expected embedded or stack; chaos is for what runs on this machine")
    for sign in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, _interrupt)
    chosen = {name.strip() for name in only.split(",") if name.strip()}
    root = (folder or data_dir() / "chaos").expanduser().absolute()
    outcomes = []
    for number in range(seed, seed + runs):
        load = Load(rate, seconds, number, file.absolute() if file else None)
        outcome = _run(env, load, kinds, chosen, root / f"{env}-{number}", keep=keep, list_only=list_only)
        if outcome is not None:
            outcomes.append(outcome)
    if outcomes:
        print(table(outcomes), flush=True)
    return 0 if all(o.passed for o in outcomes) else 1


def _run(
    env: str, load: Load, kinds: list[str], chosen: set[str], root: Path, *, keep: bool, list_only: bool
) -> Outcome | None:
    from bench.chaos import embedded, stack
    from bench.chaos.runner import Run

    known = embedded.targets() if env == "embedded" else stack.targets()
    if unknown := chosen - {name for names in known.values() for name in names}:
        raise SettingError(f"--targets: unknown target {min(unknown)!r}; ./tide chaos --plan names them")
    wanted = {kind: [n for n in names if not chosen or n in chosen] for kind, names in known.items()}
    faults = plan.schedule(load.seed, load.seconds, wanted, kinds)
    _say(f"seed {load.seed}: {len(faults)} faults in {load.seconds:g} s, {load.rate:g} records/s")
    for fault in faults:
        _say("  " + fault.line())
    if list_only:
        return None
    _make_anew(root)
    with _place(env, root) as (site, where, environ):
        run = Run(
            site,
            faults,
            load,
            Outcome(env, load.seed, load.seconds),
            where=where,
            folder=root / "chaos",
            environ=environ,
            say=_say,
        )
        outcome = run.run()
    (root / _MARK).write_text(json.dumps(outcome.as_dict(), indent=1), "utf-8")
    for problem in outcome.problems:
        _say(f"problem: {problem}")
    _say(f"seed {load.seed}: {'passed' if outcome.passed else f'FAILED; its data is in {root}'}")
    if outcome.passed and not keep:
        shutil.rmtree(root)
    return outcome


def _make_anew(root: Path) -> None:
    """An empty folder; one that is there must be a former run's."""
    if root.exists():
        if not (root / _MARK).exists():
            raise SettingError(f"{root} is no chaos run's folder; move it away, or choose another --data-dir")
        shutil.rmtree(root)
    (root / "chaos").mkdir(parents=True)
    (root / _MARK).write_text("{}", "utf-8")


@contextmanager
def _place(env: str, root: Path) -> Iterator[tuple[Place, list[str], dict[str, str]]]:
    """The site, the options that name it on a command line, and the environment for its commands."""
    from bench.chaos.embedded import EmbeddedSite
    from bench.chaos.stack import running_stack
    from deploy.embedded.places import Places
    from deploy.embedded.supervisor import running_services

    if env == "stack":
        config = json.loads(config_file().read_text("utf-8"))
        with running_stack(root, ROOT, config, _say) as (site, environ):
            yield site, ["-e", env], environ
        return
    places = Places(root)
    with running_services(places, lambda: settings_for(env, root), 0, _say) as services:
        where = ["-e", env, "--data-dir", str(root)]
        yield EmbeddedSite(services), where, services.environ


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt
