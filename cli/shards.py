"""`./tide shards`: which DSN holds which logical shard; sets the DSNs up, moves shards, deletes what is old."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from cli.context import DataDirOption, EnvOption, settings_for
from clicktide.errors import ClicktideError, SettingError, StoreUnavailable
from clicktide.settings import Settings

if TYPE_CHECKING:
    from clicktide.sql import SqlStore

app = typer.Typer(help="The logical shards: show, init, move, prune.", no_args_is_help=True)


@app.command()
def show(env: EnvOption = "embedded", data_dir: DataDirOption = None) -> int:
    """Each DSN, whether it answers, and the shards it holds; then every shard that is not at its home."""
    from rich.console import Console
    from rich.table import Column, Table

    settings = settings_for(env, data_dir)
    store = _open(settings)
    table = Table(
        Column("DSN", justify="right"), "address", "state", Column("shards", justify="right"), "which"
    )
    elsewhere: list[str] = []
    away = False
    for dsn in store.dsns:
        address = dsn.engine.url.render_as_string(hide_password=True)
        try:
            held = store.shards_at(dsn.index)
        except StoreUnavailable as e:
            away = True
            table.add_row(str(dsn.index), address, str(e), "", "")
            continue
        table.add_row(str(dsn.index), address, "answers", str(len(held)), ranges(held))
        for shard in range(store.shards):
            entry = store.placement.entry(dsn.index, shard)
            if entry is not None and entry.state != "moved":
                place = (
                    ""
                    if entry.state == "active"
                    else f" {'to' if entry.state == 'moving' else 'from'} {entry.dsn}"
                )
                elsewhere.append(f"shard {shard}: {entry.state} at DSN {dsn.index}{place}")
    Console().print(table)
    print("\n".join(elsewhere) or "every shard is at its home")
    return 1 if away else 0


@app.command()
def init(env: EnvOption = "embedded", data_dir: DataDirOption = None) -> int:
    """Make or upgrade the tables of every DSN, and lay the shards out on a first start; again changes nothing."""
    from clicktide.sql import migrate
    from clicktide.sql.engine import dsns_of

    settings = settings_for(env, data_dir)
    store = _open(settings)
    for dsn, url in zip(store.dsns, dsns_of(settings), strict=True):
        print(f"DSN {dsn.index}: {dsn.engine.url.render_as_string(hide_password=True)} ...", flush=True)
        migrate(url)
    store.prepare()
    for dsn in store.dsns:
        print(f"DSN {dsn.index}: ready, {len(store.shards_at(dsn.index))} shards")
    return 0


@app.command()
def move(
    shards: Annotated[list[int], typer.Argument(help="Logical shards.")],
    to: Annotated[int, typer.Option("--to", help="Number of the DSN they go to, counted from 0.")] = -1,
    env: EnvOption = "embedded",
    data_dir: DataDirOption = None,
    *,
    cancel: Annotated[bool, typer.Option("--cancel", help="Leave them where they were instead.")] = False,
) -> int:
    """Move shards to another DSN while events flow; the same call goes on with a move that was interrupted."""
    from clicktide.sql.move import Mover

    if cancel == (to >= 0):
        raise SettingError("expected --to DSN, or --cancel")
    store = _open(settings_for(env, data_dir))
    for shard in shards:
        progress = _Progress(shard)
        mover = Mover(store, lambda: time.time_ns() // 1_000_000, time.sleep, progress)
        try:
            if cancel:
                mover.cancel(shard)
            else:
                mover.move(shard, to)
        except KeyboardInterrupt:
            print(f"\nshard {shard}: stopped on its way; the same command goes on, --cancel takes it back")
            raise
        except ClicktideError:
            progress.end()
            raise
        progress.end()
        print(f"shard {shard}: at DSN {store.dsn_of(shard)}")
    return 0


@app.command()
def prune(
    shards: Annotated[list[int] | None, typer.Argument(help="Logical shards.  [default: all]")] = None,
    older_than: Annotated[str, typer.Option("--older-than", help="Age of what goes, in days: 90d.")] = "",
    env: EnvOption = "embedded",
    data_dir: DataDirOption = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
) -> int:
    """Delete the events that happened longer ago, and the orders of which nothing happened since; sums stay as they are."""
    from clicktide.sql.prune import cutoff_ms
    from clicktide.sql.prune import prune as delete_old

    days = older_than.removesuffix("d")
    if not days.isdecimal():
        raise SettingError(f"--older-than: expected a number of days like 90d, got {older_than!r}")
    settings = settings_for(env, data_dir)
    before = cutoff_ms(settings, int(days) * 86_400_000, time.time_ns() // 1_000_000)
    store = _open(settings)
    chosen = sorted(set(shards or range(store.shards)))
    if chosen[0] < 0 or chosen[-1] >= store.shards:
        raise SettingError(f"expected shards from 0 to {store.shards - 1}")
    try:
        found = delete_old(store, chosen, before, _tell_pruning, delete=not dry_run)
    except KeyboardInterrupt:
        print("\nstopped on its way; the same command goes on")
        raise
    finally:
        print()
    print(f"{'would delete' if dry_run else 'deleted'} {found.events:,} events and {found.orders:,} orders")
    return 0


def _tell_pruning(shard: int, table: str, seen: int, old: int) -> None:
    print(f"\rshard {shard}: {table} looked at {seen:,}, too old {old:,}      ", end="", flush=True)


class _Progress:
    """One line a step, rewritten as its count grows."""

    def __init__(self, shard: int) -> None:
        self._shard, self._step = shard, ""

    def __call__(self, step: str, done: int) -> None:
        if self._step not in ("", step):
            print()
        self._step = step
        print(f"\rshard {self._shard}: {step}" + (f" {done:,}" if done else ""), end="", flush=True)

    def end(self) -> None:
        if self._step:
            print()
        self._step = ""


def _open(settings: Settings) -> SqlStore:
    from clicktide.sql import SqlStore

    return SqlStore(settings)


def ranges(numbers: list[int]) -> str:
    """Sorted numbers as text: `0, 2, 4-7`; every other one from 0 to 62 as `0-62 by 2`."""
    if len(numbers) > 2:
        step = numbers[1] - numbers[0]
        if step > 1 and numbers == list(range(numbers[0], numbers[-1] + 1, step)):
            return f"{numbers[0]}-{numbers[-1]} by {step}"
    found: list[list[int]] = []
    for n in numbers:
        if found and found[-1][1] == n - 1:
            found[-1][1] = n
        else:
            found.append([n, n])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in found)
