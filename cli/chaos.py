"""`./tide chaos`: faults on a seeded schedule against a Clicktide of its own, under traffic, judged by the ledger.

Promises: what it kills and stops was started by it; nothing is left running; exit code 0 only if every run passed.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from bench.chaos import plan
from bench.chaos.report import Outcome, table
from bench.chaos.scenario import SCENARIOS
from bench.chaos.traffic import Load
from cli.context import ROOT, EnvOption, config_file, data_dir, settings_for
from clicktide.errors import SettingError


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
    scenario: Annotated[
        str,
        typer.Option(
            help=f"Instead of drawn faults: {', '.join(SCENARIOS)} (away for three times --seconds, with probes)."
        ),
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
    """Kill, stop, cut off, fill, roll back everything on a seeded schedule; exit 0 only if nothing was lost or doubled."""
    kinds = [kind.strip() for kind in faults.split(",") if kind.strip()] or list(plan.KINDS)
    if unknown := [kind for kind in kinds if kind not in plan.KINDS]:
        raise SettingError(
            f"--faults: unknown fault {unknown[0]!r}; expected some of {', '.join(plan.KINDS)}"
        )
    if file is not None and not (file.is_file() and os.access(file, os.R_OK)):
        raise SettingError(f"--file {file}: expected a file that can be read")
    if env not in ("embedded", "stack"):
        raise SettingError(f"-e {env}: expected embedded or stack; chaos is for what runs on this machine")
    if scenario and scenario not in SCENARIOS:
        raise SettingError(f"--scenario: unknown {scenario!r}; expected one of {', '.join(SCENARIOS)}")
    written = SCENARIOS[scenario](env, seconds) if scenario else None
    if written is not None:
        kinds, seconds = [fault.kind for fault in written.faults], written.seconds
    for sign in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, _interrupt)
    from bench.chaos.series import Series

    root = (folder or data_dir() / "chaos").expanduser().absolute()
    series = Series(
        env,
        root,
        ROOT,
        config_file(),
        lambda below: settings_for(env, below),
        kinds,
        frozenset(name.strip() for name in only.split(",") if name.strip()),
        keep,
        _say,
        written,
    )
    whole = file.absolute() if file else None
    loads = [Load(rate, seconds, number, whole) for number in range(seed, seed + runs)]
    if list_only:
        for load in loads:
            series.faults(load)
        return 0
    outcomes: list[Outcome] = []
    try:
        for outcome in series.run(loads):
            outcomes.append(outcome)  # noqa: PERF402 - what has ended is told, whatever ends the series
    finally:
        if outcomes:
            print(table(outcomes), flush=True)
    return 0 if all(o.passed for o in outcomes) else 1


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt
