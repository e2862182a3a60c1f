"""`./tide generate`: seeded open-loop traffic, with its truth in a file."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Annotated

import typer

from bench import drive, generator
from bench.sender import Sender
from bench.truth import TruthWriter
from bench.user_files import short_digest
from cli.context import DataDirOption, EnvOption, settings_for
from cli.traffic import open_target, say, stop_on_sigterm


def main(
    rate: Annotated[float, typer.Option(help="Records a second.")],
    seconds: Annotated[float, typer.Option(help="For how long.")],
    seed: Annotated[int, typer.Option(help="The same seed gives the same shoppers and steps.")],
    truth: Annotated[
        Path, typer.Option(help="Write what was accepted into this file, a JSON line a record.")
    ],
    duplicates: Annotated[float, typer.Option(help="Share of records sent a second time, 0 to 1.")] = 0.0,
    malformed: Annotated[float, typer.Option(help="Share of records that are no events.")] = 0.0,
    late: Annotated[float, typer.Option(help="Share of records that are too old to count.")] = 0.0,
    orders: Annotated[float, typer.Option(help="Share of records that are orders, nearly all paid.")] = 0.05,
    to: Annotated[
        str, typer.Option(help="A collector's URL, or kafka for the log.  [default: the env's]")
    ] = "",
    run: Annotated[
        str, typer.Option(help="Label of the run; ids repeat with it.  [default: a new one]")
    ] = "",
    env: EnvOption = "embedded",
    data_dir: DataDirOption = None,
) -> int:
    """Send made-up shoppers' events on a fixed schedule; the truth file says what was accepted."""
    mix = generator.Mix(duplicates, malformed, late, orders)
    if (problem := mix.problem()) is not None:
        raise typer.BadParameter(problem)
    if not (0 < rate <= 1_000_000 and 0 < seconds < 10**7):
        raise typer.BadParameter("--rate and --seconds: expected numbers above 0")
    total = max(1, round(rate * seconds))
    settings = settings_for(env, data_dir)
    target = open_target(to, env, data_dir, settings)
    target.probe(5.0)
    run_id = "g" + short_digest((run or uuid.uuid4().hex).encode(), str(seed).encode())
    with stop_on_sigterm():
        writer = TruthWriter(truth)
        say(f"generating {total} records at {rate:g}/s to {target.name}, run {run_id}, seed {seed}")
        sender = Sender(target, writer, capacity=200_000, lanes=target.paced_lanes)
        start_ms = int(time.time() * 1000) + 100
        records = generator.events(
            seed,
            rate=rate,
            start_ms=start_ms,
            run=run_id,
            mix=mix,
            late_after_h=settings.number("events.late_after_h"),
        )
        done = drive.open_loop(records, sender, total=total, rate=rate, start_s=start_ms / 1000)
        writer.close()
    for line in done.lines():
        say(line)
    say(f"truth: {truth}")
    if done.interrupted:
        say(f"stopped after {done.sent} of {total} records")
    return done.exit_code()
