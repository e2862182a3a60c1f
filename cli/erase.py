"""`./tide erase`: erases a user from the stores for good, or lets an erased user in again."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from cli.context import DataDirOption, EnvOption, settings_for


def erase(
    user: Annotated[str, typer.Argument(help="The user_id, as the events have it.")],
    env: EnvOption = "embedded",
    data_dir: DataDirOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    lift: Annotated[
        bool,
        typer.Option("--lift", help="Take an erasure back: later events count; what was erased stays so."),
    ] = False,
) -> int:
    """Erase a user everywhere and for good: what comes of the user later, replays too, is dropped."""
    from clicktide.erasure import Erasure
    from retry.opening import desk_of
    from retry.show import printable
    from retry.work import remove_user

    named = printable(user)
    settings = settings_for(env, data_dir)
    if not yes and not lift and not _sure(named):
        return 1
    erasure = Erasure(settings, lambda: int(time.time() * 1000), time.sleep)
    try:
        if lift:
            was = erasure.lift(user)
            print(f"{named}: {'no longer erased' if was else 'was not erased'}")
            return 0
        print(f"{named}: erasing; Redis takes two seconds to make it last", file=sys.stderr)
        with desk_of(env, data_dir) as desk:
            found = erasure.erase(user, desk.log)
            dead = remove_user(desk, user)
    finally:
        erasure.close()
    print(
        f"{named}: erased. Redis: {found.redis} events; SQL: {found.mysql} events, {found.orders} orders; {dead} dead letters."
        f" Left in the retry topics until their retention, as erased: {found.retry} records"
    )
    return 0


def _sure(named: str) -> bool:
    if not sys.stdin.isatty():
        print("tide erase: nobody to ask; --yes says that it is meant", file=sys.stderr)
        return False
    return typer.confirm(f"Erase all of user {named}, for good?")
