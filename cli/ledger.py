"""`./tide ledger`: holds a truth file against what is stored; exit 0 only if it balances."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import orjson
import typer

from bench import ledger
from bench.progress import Meter
from cli.context import DataDirOption, EnvOption, settings_for


def main(
    file: Annotated[Path, typer.Argument(help="A truth file, written by ./tide generate or ./tide replay.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")] = False,
    wait: Annotated[float, typer.Option(help="Try again for so many seconds until it balances.")] = 0.0,
    only: Annotated[bool, typer.Option("--only", help="Nothing else may be in the stores.")] = False,
    env: EnvOption = "embedded",
    data_dir: DataDirOption = None,
) -> int:
    """One line a check: what the truth says, what is stored. SQL, Redis and the dead letters are read."""
    settings = settings_for(env, data_dir)
    with Meter("comparing", None) as meter:
        tries = 0

        def on_try(report: ledger.Report | None) -> None:
            nonlocal tries
            tries += 1
            failed = (
                "a store is away" if report is None else f"{sum(not c.ok for c in report.checks)} checks fail"
            )
            meter.show(tries, f"{failed}, trying again")

        report = ledger.check_until(file, settings, wait, only=only, on_try=on_try)
    if as_json:
        print(orjson.dumps(report.as_dict(), option=orjson.OPT_INDENT_2).decode())
    else:
        print("\n".join(report.lines()))
    return 0 if report.balanced else 1
