"""Keys: their file, the keyring that watches it, and the command that manages it."""

import json
import os
import stat

import pytest
from typer.testing import CliRunner

from cli.keys import app
from clicktide.errors import SettingError
from services.access import keyfile
from services.access.keyfile import Key, Keys, Secret, checked_origin
from services.access.keyring import Keyring

HOUR = 3_600_000


class Clock:
    def __init__(self):
        self.s = 100.0

    def ms(self):
        return int(self.s * 1000)

    def seconds(self):
        return self.s


def made(scope="write", id_="abcdefgh", **more):
    token = keyfile.new_token(scope, id_)
    expires = more.pop("expires", None)
    return token, Key(id_, "shop", scope, 0, (Secret(keyfile.digest(token), 0, expires),), **more)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys.json"


def opened(path, clock, *keys, noted=lambda _: None):
    keyfile.write(path, Keys(keys=keys))
    return Keyring(path, clock.ms, clock.seconds, noted)


# The file


def test_the_file_is_its_owners_alone_and_holds_no_token(path):
    token, key = made()
    keyfile.write(path, Keys(keys=(key,)))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert token not in path.read_text()
    assert token.rpartition("_")[2] not in path.read_text()
    assert keyfile.read(path).keys == (key,)
    assert [p.name for p in path.parent.iterdir()] == ["keys.json"]


def test_a_write_that_fails_leaves_the_old_file(path, monkeypatch):
    _, key = made()
    keyfile.write(path, Keys(keys=(key,)))
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(SettingError, match="No space left"):
        keyfile.write(path, Keys())
    assert keyfile.read(path).keys == (key,)
    assert [p.name for p in path.parent.iterdir()] == ["keys.json"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "truncated"),
        ("[]", "Expected `object`"),
        ('{"v":2,"keys":[]}', "v"),
        ('{"v":1,"keys":[{"id":"abcdefgh"}]}', "missing required field"),
        ('{"v":1,"keys":[],"more":1}', "unknown field"),
    ],
)
def test_what_is_no_keys_file_is_said_in_one_line(path, content, complaint):
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(SettingError) as e:
        keyfile.read(path)
    assert complaint in str(e.value)
    assert str(e.value).startswith(f"keys file {path}: ")
    assert "\n" not in str(e.value)


def test_a_file_that_others_may_write_is_refused(path):
    keyfile.write(path, Keys())
    path.chmod(0o620)
    with pytest.raises(SettingError, match="others may write it; chmod 600"):
        keyfile.read(path)


def test_two_keys_of_one_id_are_refused(path):
    keyfile.write(path, Keys(keys=(made()[1], made()[1])))
    with pytest.raises(SettingError, match="same id"):
        keyfile.read(path)


def test_tokens_are_long_and_name_their_key():
    tokens = {keyfile.new_token("read", "abcdefgh") for _ in range(100)}
    assert len(tokens) == 100
    assert all(keyfile.id_of(t) == "abcdefgh" and len(t.split("_", 3)[3]) == 43 for t in tokens)
    for other in ("", "tide_read_abcdefgh_", "Bearer x", "tide_root_abcdefgh_" + "a" * 43, "é" * 60):
        assert keyfile.id_of(other) is None


@pytest.mark.parametrize("text", ["https://Shop.example/", "http://localhost:3000"])
def test_origins_are_kept_as_browsers_send_them(text):
    assert checked_origin(text) == text.rstrip("/").lower()


@pytest.mark.parametrize("text", ["shop.example", "https://", "https://a/b", "ftp://a", "*"])
def test_what_is_no_origin_is_refused(text):
    with pytest.raises(SettingError, match="expected https://host"):
        checked_origin(text)


# The keyring


def test_a_token_is_known_and_no_other(path, clock):
    token, key = made()
    ring = opened(path, clock, key)
    assert ring.find(token) == key
    changed = token[:-1] + ("A" if token[-1] != "A" else "B")
    for other in (changed, token + "x", token.upper(), "", made()[0], made(id_="zzzzzzzz")[0]):
        assert ring.find(other) is None


def test_expired_and_revoked_tokens_are_unknown(path, clock):
    soon, a = made(id_="aaaaaaaa", expires=clock.ms() + 500)
    gone, b = made(id_="bbbbbbbb", revoked=1)
    ring = opened(path, clock, a, b)
    assert ring.find(soon) is not None
    assert ring.find(gone) is None
    clock.s += 0.5
    assert ring.find(soon) is None


def test_a_changed_file_holds_a_second_later(path, clock):
    old, a = made(id_="aaaaaaaa")
    new, b = made(id_="bbbbbbbb")
    ring = opened(path, clock, a)
    keyfile.write(path, Keys(keys=(b,)))
    assert ring.find(old) is not None
    clock.s += 1
    assert ring.find(old) is None
    assert ring.find(new) is not None


@pytest.mark.parametrize(
    "spoil", [lambda p: p.write_text("{"), lambda p: p.unlink(), lambda p: p.chmod(0o666)]
)
def test_a_broken_file_keeps_the_last_good_one_says_so_once_and_is_read_when_mended(
    path, clock, caplog, spoil
):
    token, key = made()
    notes = []
    ring = opened(path, clock, key, noted=notes.append)
    spoil(path)
    for _ in range(3):
        clock.s += 1
        assert ring.find(token) == key
    assert caplog.text.count("the keys read before stay in force") == 1
    assert notes == [True, False, False, False]
    keyfile.write(path, Keys())
    clock.s += 1
    assert ring.find(token) is None
    assert notes[-1] is True


def test_a_stranger_costs_as_many_compares_as_a_key_with_one_token(path, clock, monkeypatch):
    token, key = made()
    ring = opened(path, clock, key)
    calls = []
    real = keyfile.digest
    monkeypatch.setattr("services.access.keyring.hmac.compare_digest", lambda a, b: calls.append(1) or a == b)
    for asked in (token, made()[0], made(id_="zzzzzzzz")[0]):
        calls.clear()
        ring.find(asked)
        assert len(calls) == 1
    assert real(token) == key.secrets[0].sha256


# The command


def command(path, *arguments):
    done = CliRunner().invoke(app, [*arguments, "--file", str(path)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_a_key_is_added_rotated_and_revoked(path, clock):
    token = command(path, "add", "--scope", "read", "--name", "board", "--rate", "5").stdout.strip()
    id_ = keyfile.id_of(token)
    ring = Keyring(path, clock.ms, clock.seconds)
    assert (ring.find(token).scope, ring.find(token).rate) == ("read", 5.0)
    new = command(path, "rotate", id_, "--overlap", "1h").stdout.strip()
    (key,) = keyfile.read(path).keys
    assert len(key.secrets) == 2
    clock.s = key.secrets[1].created / 1000 + 2
    assert ring.find(token).id == ring.find(new).id == id_
    clock.s += 3601
    assert ring.find(token) is None
    assert ring.find(new) is not None
    command(path, "revoke", id_)
    clock.s += 1
    assert ring.find(new) is None
    with pytest.raises(SettingError, match="is revoked"):
        command(path, "rotate", id_)


def test_list_shows_everything_but_tokens(path):
    token = command(
        path, "add", "--scope", "write", "--name", "shop", "--origin", "https://shop.example"
    ).stdout
    row = json.loads(command(path, "list", "--json").stdout)
    assert (row["scope"], row["state"], row["origins"]) == ("write", "good", ["https://shop.example"])
    for shown in (command(path, "list").stdout, json.dumps(row)):
        assert token.strip() not in shown
        assert keyfile.digest(token.strip()) not in shown


def test_rotating_again_never_lengthens_what_an_old_token_has_left(path):
    token = command(path, "add", "--scope", "write", "--name", "shop").stdout.strip()
    id_ = keyfile.id_of(token)
    command(path, "rotate", id_, "--overlap", "10s")
    first = keyfile.read(path).keys[0].secrets[0].expires
    command(path, "rotate", id_, "--overlap", "7d")
    assert keyfile.read(path).keys[0].secrets[0].expires == first


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("add", "--scope", "root", "--name", "x"), "--scope: expected write, read, admin"),
        (("add", "--scope", "read", "--name", ""), "--name"),
        (("add", "--scope", "read", "--name", "x", "--burst", "5"), "--burst: expected --rate"),
        (("add", "--scope", "read", "--name", "x", "--expires", "soon"), "--expires: expected a time span"),
        (("revoke", "nosuchid"), "No such file"),
        (("list",), "No such file"),
    ],
)
def test_wrong_use_is_one_line(path, arguments, complaint):
    with pytest.raises(SettingError) as e:
        command(path, *arguments)
    assert complaint in str(e.value)


def test_without_a_file_it_says_how_to_name_one(monkeypatch):
    monkeypatch.delenv("TIDE_KEYS_FILE", raising=False)
    with pytest.raises(SettingError, match="TIDE_KEYS_FILE"):
        raise CliRunner().invoke(app, ["list"]).exception
