"""The retry desk's command line: `./tide dead`, `python -m retry`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from cli.context import DataDirOption, EnvOption
from clicktide.errors import SettingError
from clicktide.retry import alarms, removal
from clicktide.retry.dead_limits import group
from clicktide.retry.letters import Filter, checked_id
from retry import show as showing
from retry.audit import history
from retry.desk import READING, now_ms
from retry.edits import read_edits
from retry.opening import desk_of
from retry.options import (
    CodeOption,
    SinceOption,
    StageOption,
    TopicOption,
    UntilOption,
    UserOption,
    filter_of,
    span_s,
)
from retry.work import choose, must_choose, remove, send

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="The retry desk: dead letters, listed, shown, replayed and removed.",
)

IdsArgument = Annotated[
    list[str] | None, typer.Argument(help="Ids as list shows them; none for all that match.")
]
AuditOption = Annotated[
    Path | None, typer.Option(help="The audit trail.  [default: dead-audit.jsonl in the data directory]")
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON lines instead of a table.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


@app.command("list")
def list_(
    stage: StageOption = None,
    code: CodeOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    user: UserOption = None,
    topic: TopicOption = None,
    limit: Annotated[int, typer.Option(help="The newest so many; 0 for all.", min=0)] = 50,
    as_json: JsonOption = False,
    values: Annotated[bool, typer.Option("--values", help="With --json: the bytes too.")] = False,
    env: EnvOption = "embedded",
    data_dir: DataDirOption = None,
) -> int:
    """The dead letters that match, newest last; a record that died several times at one stage stands once."""
    with desk_of(env, data_dir) as desk:
        wanted = filter_of(desk.prefix, now_ms(), None, stage, code, since, until, user, topic)
        with desk.progress(READING) as moved:
            found = showing.newest(desk.letters.read(wanted, moved), limit)
        if as_json:
            for line in showing.json_lines(found, values=values):
                print(line)
        else:
            showing.table(found)
    return 0


@app.command()
def show(
    id_: Annotated[str, typer.Argument(metavar="ID", help="An id as list shows it.")],
    raw: Annotated[
        bool, typer.Option("--raw", help="Only the record's bytes, to edit them in a file.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    audit: AuditOption = None,
    env: EnvOption = "embedded",
    data_dir: DataDirOption = None,
) -> int:
    """One record: its bytes, its headers, and what has become of it so far."""
    with desk_of(env, data_dir, audit) as desk:
        name = checked_id(id_, desk.prefix)
        with desk.progress(READING) as moved:
            found = list(desk.letters.read(Filter(ids=frozenset([name])), moved))
        past = history(desk.audit.path, name)
        if not found and not (past and not raw):
            raise SettingError(f"there is no dead letter {name}")
        if raw:
            sys.stdout.buffer.write(found[-1].record.value)
            sys.stdout.buffer.flush()
        elif as_json:
            print(json.dumps(showing.one(name, found, past), ensure_ascii=False, indent=2))
        else:
            showing.page(name, found, past)
    return 0


@app.command()
def replay(
    ids: IdsArgument = None,
    stage: StageOption = None,
    code: CodeOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    user: UserOption = None,
    topic: TopicOption = None,
    rate: Annotated[float, typer.Option(help="At most so many a second; 0 for no limit.", min=0)] = 0,
    edit: Annotated[
        Path | None,
        typer.Option(
            help="New bytes: of the one ID given, or JSON lines with `id` and `value` (list --json --values)."
        ),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Really all, where nothing else says which.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also those replayed too often, and edits objected to.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave them among the dead letters as well.")] = False,
    dry_run: DryRunOption = False,
    audit: AuditOption = None,
    env: EnvOption = "embedded",
    data_dir: DataDirOption = None,
) -> int:
    """Send dead letters back to the stage that failed. They leave `dead`, and come back to it if they fail again."""
    with desk_of(env, data_dir, audit) as desk:
        edits = {} if edit is None else read_edits(edit, ids or [], desk.prefix)
        chosen_ids = list(edits) if edits and not ids else ids
        wanted = filter_of(desk.prefix, now_ms(), chosen_ids, stage, code, since, until, user, topic)
        must_choose(wanted, all_=all_, dry_run=dry_run)
        most = None if force else desk.policy.max_replays
        chosen = choose(desk, wanted, most, edits, force=force)
        for name, n in sorted(chosen.refused.items())[:10]:
            print(f"not replayed: {name} has been {n} times already (--force does it)", file=sys.stderr)
        if dry_run:
            print(f"would replay {len(chosen)} dead letters, {len(chosen.refused)} refused")
            return 0
        sent = send(desk, chosen, edits, rate, keep=keep)
    print(
        f"replayed {sent} dead letters, {len(chosen.refused)} refused (run {desk.run}, audit {desk.audit.path})"
    )
    return 1 if chosen.refused and not sent else 0


@app.command()
def purge(
    ids: IdsArgument = None,
    stage: StageOption = None,
    code: CodeOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    user: UserOption = None,
    topic: TopicOption = None,
    all_: Annotated[bool, typer.Option("--all", help="Really all, where nothing else says which.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: DryRunOption = False,
    audit: AuditOption = None,
    env: EnvOption = "embedded",
    data_dir: DataDirOption = None,
) -> int:
    """Remove dead letters for ever."""
    with desk_of(env, data_dir, audit) as desk:
        wanted = filter_of(desk.prefix, now_ms(), ids, stage, code, since, until, user, topic)
        must_choose(wanted, all_=all_, dry_run=dry_run)
        chosen = choose(desk, wanted, None, {}, force=True)
        drop = chosen.by_partition(chosen.newest)
        again = removal.survivors(desk.letters, drop)
        if dry_run or not chosen:
            print(
                f"would remove {len(chosen)} dead letters; {again} that stay would be written again behind them"
            )
            return 0
        if not yes:
            if not sys.stdin.isatty():
                raise SettingError(f"{len(chosen)} dead letters would be removed for ever; say --yes")
            typer.confirm(f"Remove {len(chosen)} dead letters for ever?", abort=True)
        remove(desk, chosen)
    print(f"removed {len(chosen)} dead letters (audit {desk.audit.path})")
    return 0


@app.command()
def allow(
    stage: Annotated[str, typer.Option(help="parse, redis, mysql, poison or all.")],
    for_: Annotated[str, typer.Option("--for", help="How long: 90s, 10m, 2h; 0s takes it back.")] = "10m",
    audit: AuditOption = None,
    env: EnvOption = "embedded",
    data_dir: DataDirOption = None,
) -> int:
    """Let a stage that was stopped for its many dead letters go on for a while."""
    if group(stage) not in (*alarms.STAGES, alarms.ALL):
        raise SettingError(f"--stage: expected {', '.join(alarms.STAGES)} or {alarms.ALL}, got {stage!r}")
    seconds = span_s(for_, "--for")
    with desk_of(env, data_dir, audit) as desk:
        until = now_ms() + int(seconds * 1000)
        desk.audit.acts("allow", [{"stage": group(stage), "until": until}])
        alarms.allow(desk.redis, desk.namespace, group(stage), until)
    print(
        f"dead letters of stage {group(stage)} are let through for {seconds:g} s; waiting slices come within 30 s"
    )
    return 0


@app.command("alarms")
def alarms_(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    env: EnvOption = "embedded",
    data_dir: DataDirOption = None,
) -> int:
    """The stages that are stopped for their many dead letters, and what is allowed. Exit code 1 while any is."""
    with desk_of(env, data_dir) as desk:
        stopped = alarms.stopped(desk.redis, desk.namespace)
        now = now_ms()
        allowed = {
            name: until
            for name, until in alarms.allowances(desk.redis, desk.namespace).items()
            if until > now
        }
    if as_json:
        print(json.dumps({"stopped": stopped, "allowed": allowed}))
    else:
        for name, figures in stopped.items():
            print(f"{name}: stopped, {figures.get('dead')} dead letters within its window")
        for name, until in allowed.items():
            print(f"{name}: allowed for another {(until - now) / 1000:.0f} s")
        if not stopped and not allowed:
            print("no stage is stopped")
    return 1 if stopped else 0
