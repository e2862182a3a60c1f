"""`./tide keys`: the keys of the services, in one file.

Promises: a token is printed once, alone on standard output, and is nowhere else; running services see a change within two
seconds, without a restart.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from cli.context import DataDirOption, EnvOption, settings_for
from clicktide.errors import SettingError
from retry.options import span_s
from services.access import keyfile
from services.access.keyfile import SCOPES, Key, Keys, Secret

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="The services' keys: add, list, revoke, rotate.",
)

FileOption = Annotated[
    Path | None, typer.Option("--file", help="The keys file.  [default: setting keys.file, TIDE_KEYS_FILE]")
]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="A key's id, as list shows it.")]
ExpiresOption = Annotated[
    str | None, typer.Option(help="The token is good for so long: 12h, 90d.  [default: for ever]")
]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def place(given: Path | None, env: str, data_dir: Path | None) -> Path:
    """The keys file. Raises `SettingError` when nothing names it."""
    named = str(given) if given is not None else settings_for(env, data_dir).text("keys.file")
    if not named:
        raise SettingError("no keys file is named: give --file, or set keys.file (TIDE_KEYS_FILE)")
    return Path(named).expanduser()


def kept(path: Path) -> Keys:
    """What the file holds; no keys where there is no file yet."""
    return keyfile.read(path) if path.exists() else Keys()


def end_of(expires: str | None, now: int) -> int | None:
    return None if expires is None else now + int(span_s(expires, "--expires") * 1000)


def added(keys: Keys, key: Key) -> Keys:
    return Keys(keys=(*keys.keys, key))


def found(keys: Keys, id_: str) -> Key:
    """Raises `SettingError`."""
    for key in keys.keys:
        if key.id == id_:
            return key
    raise SettingError(f"there is no key {id_!r}; ./tide keys list shows them")


def replaced(keys: Keys, key: Key) -> Keys:
    return Keys(keys=tuple(key if k.id == key.id else k for k in keys.keys))


def rotated(key: Key, secret: Secret, old_until: int) -> Key:
    """The key with a new secret; the older ones end at `old_until` (ms), or when they would have ended before."""
    if key.revoked is not None:
        raise SettingError(f"key {key.id} is revoked; add a new one")
    old = tuple(
        msgspec.structs.replace(s, expires=old_until if s.expires is None else min(s.expires, old_until))
        for s in key.secrets
        if s.expires is None or s.expires > secret.created
    )
    return msgspec.structs.replace(key, secrets=(*old, secret))


@app.command()
def add(
    scope: Annotated[str, typer.Option(help="write (send events), read (ask), admin (all, also erase).")],
    name: Annotated[str, typer.Option(help="Whose key it is, for people: shop-web.")],
    rate: Annotated[
        float | None,
        typer.Option(
            help="At most so many events (write) or requests (read) a second on average.", min=0.001
        ),
    ] = None,
    burst: Annotated[
        float | None, typer.Option(help="So many at once.  [default: one second's worth]", min=1)
    ] = None,
    origin: Annotated[
        list[str] | None,
        typer.Option(help="Only for pages of this origin (https://shop.example); repeatable."),
    ] = None,
    expires: ExpiresOption = None,
    file: FileOption = None,
    env: EnvOption = "embedded",
    data_dir: DataDirOption = None,
) -> int:
    """Make a key and print its token: the only time that it is shown."""
    if scope not in SCOPES:
        raise SettingError(f"--scope: expected {', '.join(SCOPES)}, got {scope!r}")
    if not 1 <= len(name) <= 64 or not name.isprintable():
        raise SettingError("--name: expected 1 to 64 printable characters")
    if burst is not None and rate is None:
        raise SettingError("--burst: expected --rate with it")
    path, now = place(file, env, data_dir), _now_ms()
    with keyfile.alone(path) as write:
        keys = kept(path)
        id_ = keyfile.new_id({k.id for k in keys.keys})
        token = keyfile.new_token(scope, id_)
        made = Key(
            id_,
            name,
            scope,
            now,
            (Secret(keyfile.digest(token), now, end_of(expires, now)),),
            rate,
            burst,
            tuple(keyfile.checked_origin(o) for o in origin or ()),
        )
        write(added(keys, made))
    print(f"{scope} key {id_} ({name}) in {path}; its token, shown this once:", file=sys.stderr)
    print(token)
    return 0


@app.command("list")
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines instead of a table.")] = False,
    file: FileOption = None,
    env: EnvOption = "embedded",
    data_dir: DataDirOption = None,
) -> int:
    """The keys, without any token."""
    keys, now = keyfile.read(place(file, env, data_dir)), _now_ms()
    for row in (shown(k, now) for k in keys.keys):
        if as_json:
            print(json.dumps(row, ensure_ascii=False))
        else:
            limits = f"{row['rate']:g}/s" if row["rate"] else "-"
            ends = row["expires"] or "-"
            origins = " ".join(row["origins"])
            print(
                f"{row['id']}  {row['scope']:<5}  {row['state']:<8}  {ends:<20}  {limits:<10}  {row['name']}  {origins}".rstrip()
            )
    if not keys.keys and not as_json:
        print("no keys")
    return 0


def shown(key: Key, now: int) -> dict[str, Any]:
    """What may be seen of a key; times as RFC 3339 texts."""
    state = "revoked" if key.revoked is not None else "good" if key.usable(now) else "expired"
    ends = [s.expires for s in key.secrets]
    last = None if not ends or None in ends else max(e for e in ends if e is not None)
    return {
        "id": key.id,
        "name": key.name,
        "scope": key.scope,
        "state": state,
        "created": _plain(key.created),
        "expires": None if last is None else _plain(last),
        "tokens": sum(1 for s in key.secrets if s.expires is None or s.expires > now),
        "rate": key.rate,
        "burst": key.burst,
        "origins": list(key.origins),
    }


@app.command()
def revoke(
    id_: IdArgument, file: FileOption = None, env: EnvOption = "embedded", data_dir: DataDirOption = None
) -> int:
    """End a key now, and for good."""
    path = place(file, env, data_dir)
    with keyfile.alone(path) as write:
        keys = keyfile.read(path)
        key = found(keys, id_)
        if key.revoked is None:
            write(replaced(keys, msgspec.structs.replace(key, revoked=_now_ms(), secrets=())))
    print(f"{key.scope} key {id_} ({key.name}) is revoked; services know within two seconds")
    return 0


@app.command()
def rotate(
    id_: IdArgument,
    overlap: Annotated[str, typer.Option(help="The old token stays good for so long: 0s, 1h, 7d.")] = "24h",
    expires: ExpiresOption = None,
    file: FileOption = None,
    env: EnvOption = "embedded",
    data_dir: DataDirOption = None,
) -> int:
    """Give a key a new token and print it; its id, name and limits stay."""
    path, now = place(file, env, data_dir), _now_ms()
    until = now + int(span_s(overlap, "--overlap") * 1000)
    with keyfile.alone(path) as write:
        keys = keyfile.read(path)
        key = found(keys, id_)
        token = keyfile.new_token(key.scope, id_)
        write(replaced(keys, rotated(key, Secret(keyfile.digest(token), now, end_of(expires, now)), until)))
    print(
        f"{key.scope} key {id_} ({key.name}): the old token ends {_plain(until)}; the new one, shown this once:",
        file=sys.stderr,
    )
    print(token)
    return 0


def _plain(ms: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ms / 1000))
