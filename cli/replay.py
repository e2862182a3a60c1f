"""`./tide replay`: sends user_log.csv or UserBehavior.csv as events."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from bench import drive, replay, user_files
from bench.progress import Meter
from bench.sender import Sender
from bench.targets import Target
from bench.truth import Record, TruthWriter
from cli.context import DataDirOption, EnvOption, settings_for
from cli.traffic import open_target, say, stop_on_sigterm

_SHOWN_PROBLEMS = 20
_AT_ONCE = -1.0
Due = Callable[[replay.Replayed], float]


def main(
    file: Annotated[Path, typer.Argument(help="user_log.csv or Taobao's UserBehavior.csv.")],
    speed: Annotated[float | None, typer.Option(help="So many times as fast as it happened.")] = None,
    rate: Annotated[
        float | None, typer.Option(help="Records a second.  [default: as fast as acknowledged]")
    ] = None,
    to: Annotated[
        str, typer.Option(help="A collector's URL, or kafka for the log.  [default: the env's]")
    ] = "",
    dated: Annotated[
        str,
        typer.Option(metavar="YEAR", help="Keep the file's dates (user_log.csv has no year) instead of now."),
    ] = "",
    run: Annotated[str, typer.Option(metavar="LABEL", help="Another label replays the file anew.")] = "",
    truth: Annotated[
        Path | None, typer.Option(help="Write what was accepted into this file, a JSON line a record.")
    ] = None,
    env: EnvOption = "embedded",
    data_dir: DataDirOption = None,
) -> int:
    """Send a file's rows as events. The same file and label give the same event ids: again adds nothing."""
    _check(speed, rate)
    source = _inspect(file)
    dating = _dating(dated, source)
    if speed is not None and source.format == user_files.USER_LOG and dating.year is None:
        raise typer.BadParameter("--speed needs --dated YEAR for user_log.csv, which has no clock time")
    settings = settings_for(env, data_dir)
    target = open_target(to, env, data_dir, settings)
    target.probe(5.0)
    with stop_on_sigterm():
        return _run(source, run, dating, _due(rate, speed), target, truth)


def _check(speed: float | None, rate: float | None) -> None:
    if speed is not None and rate is not None:
        raise typer.BadParameter("--speed and --rate: expected one of them")
    for name, value in (("--speed", speed), ("--rate", rate)):
        if value is not None and not 0 < value < 10**9:
            raise typer.BadParameter(f"{name}: expected a number above 0, got {value:g}")


def _inspect(file: Path) -> user_files.Source:
    if file.is_dir():
        raise user_files.FileError(f"cannot read {file}: it is a directory")
    size = file.stat().st_size if file.exists() else None
    read = 0
    with Meter("looking through the file", size) as meter:

        def on_bytes(n: int) -> None:
            nonlocal read
            read += n
            meter.show(read, f"{read >> 20} of {(size or 0) >> 20} MiB")

        source = user_files.inspect(file, on_bytes)
    encoding = source.encoding.upper()
    say(f"{file.name}: {source.format}, {encoding}, {source.size} bytes" + (", header" * bool(source.header)))
    return source


def _dating(dated: str, source: user_files.Source) -> replay.Dating:
    if not dated:
        return replay.AS_SENT
    if source.format == user_files.USER_BEHAVIOR:
        return replay.Dating(own=True)
    if not (dated.isascii() and dated.isdigit() and 1970 <= int(dated[:5]) <= 2100):
        raise typer.BadParameter(f"--dated: expected a year from 1970 to 2100, got {dated!r}")
    return replay.Dating(year=int(dated))


def _due(rate: float | None, speed: float | None) -> Callable[[int], Due]:
    """When the n-th record (from 0) is due, in seconds after the start; negative: at once."""
    if speed is not None:
        due = replay.pace(lambda row: row.file_ms, speed)
        return lambda _: due
    if rate is None:
        return lambda _: lambda _row: _AT_ONCE
    return lambda n: lambda _row: n / rate


class _Rows:
    """The file's events with their times; counts and shows what is skipped."""

    def __init__(
        self, source: user_files.Source, label: str, dating: replay.Dating, due: Callable[[int], Due]
    ) -> None:
        self.types: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.last = 0
        self._events = replay.events(source, label, dating)
        self._dated = dating != replay.AS_SENT
        self._due = due

    def __iter__(self) -> Iterator[tuple[float, Callable[[float], Record]]]:
        n = 0
        for row in self._events:
            self.last = row.number
            if isinstance(row, user_files.Problem):
                self._skip(row)
                continue
            self.types[row.event["type"]] += 1
            yield self._due(n)(row), self._maker(row)
            n += 1

    def _maker(self, row: replay.Replayed) -> Callable[[float], Record]:
        def make(intended_s: float) -> Record:
            at = int(intended_s * 1000)
            return row.record(at, row.file_ms if self._dated and row.file_ms is not None else at)

        return make

    def _skip(self, problem: user_files.Problem) -> None:
        shown = self.skipped.total()
        self.skipped["blank" if problem.reason == "blank" else "unusable"] += 1
        if shown < _SHOWN_PROBLEMS:
            say(f"row {problem.number} skipped: {problem.reason}")
        elif shown == _SHOWN_PROBLEMS:
            say("more rows are skipped; they are counted at the end")


def _run(
    source: user_files.Source,
    label: str,
    dating: replay.Dating,
    due: Callable[[int], Due],
    target: Target,
    truth: Path | None,
) -> int:
    rows = _Rows(source, label, dating, due)
    writer = TruthWriter(truth) if truth is not None else None
    say(f"replaying to {target.name}, event ids {replay.id_prefix(source, label)}-ROW")
    sender = Sender(target, writer, capacity=8_000)
    done = drive.paced(iter(rows), sender, start_s=time.time(), size=source.lines)
    if writer is not None:
        writer.close()
    for line in done.lines():
        say(line)
    say("types: " + (", ".join(f"{name} {n}" for name, n in rows.types.most_common()) or "none"))
    if rows.skipped:
        say("rows skipped: " + ", ".join(f"{why} {n}" for why, n in rows.skipped.most_common()))
    if done.interrupted:
        say(
            f"stopped at row {rows.last}; the same command goes through the file again and adds what is missing"
        )
    if not done.interrupted and not rows.types:
        raise user_files.FileError(f"{source.path.name}: no usable row")
    return done.exit_code()
