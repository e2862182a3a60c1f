"""`./tide dead` as an operator types it, on an embedded log and a real Redis: what it prints, changes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from redis_server import redis_server
from unit.core.making import NOW, raw

from cli.context import settings_for
from cli.main import main
from clicktide import topics
from clicktide.divert import Divert
from clicktide.log.embedded import EmbeddedLog
from clicktide.log.port import Outgoing, TopicPartition
from clicktide.retry.policy import FATAL, DeadLimits, Policy
from clicktide.slices import Failure, Place
from retry import desk as desks

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(120)]

PREFIX = "tide."
HOSTILE = b"\x1b[2Jgone\xff"


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


class Desk:
    """A data directory with dead letters, and the command on it."""

    def __init__(self, folder: Path, capsysbinary) -> None:
        self.folder, self._captured = folder, capsysbinary
        self.now = NOW
        self.log = EmbeddedLog(folder / "log.sqlite", 64 << 20, lambda: self.now)
        self.log.admin().create_topics({PREFIX + name: 2 for name in topics.ALL})
        policy = Policy(attempts=8, unknown_attempts=4, deadline_s=3600.0, park_tier="1m", dead=DeadLimits())
        self._divert = Divert(
            self.log.consumer("g"),
            self.log.producer(),
            policy,
            PREFIX,
            lambda: self.now,
            lambda _a, b: b,
            alarms=None,
        )

    def bury(self, value: bytes, stage="parse", code="not_json", user=b"u1", partition=0) -> str:
        """One more dead letter, a second after the one before; its id."""
        record = Outgoing(PREFIX + "events", user, value, (), partition, self.now)
        (placed,) = self.log.producer().send([record], 5.0)
        self._die("events", partition, placed.offset, stage, code)
        return f"events:{partition}:{placed.offset}"

    def die_again(self) -> None:
        """What was replayed last to partition 0 fails as it did before."""
        tp = TopicPartition(PREFIX + "retry.1s", 0)
        self._die("retry.1s", 0, self.log.admin().bounds([tp])[tp][1] - 1, "parse", "not_json")

    def _die(self, name: str, partition: int, offset: int, stage: str, code: str) -> None:
        topic = self.log.admin().topics()[PREFIX + name]
        place = Place(topic.name, topic.id, "digest", partition)
        self._divert.divert(place, [Failure(offset, stage, FATAL, code, "why")])
        self.now += 1000

    def __call__(self, command: str, *words: str) -> tuple[int, str, str]:
        """Exit code, and what it printed on each stream."""
        self._captured.readouterr()
        code = main(["dead", command, *words, "--data-dir", str(self.folder)])
        out, err = self._captured.readouterr()
        self.out = out
        return code, out.decode(errors="replace"), err.decode()

    def listed(self, *words: str) -> list[str]:
        code, out, err = self("list", "--json", *words)
        assert code == 0, err
        return [json.loads(line)["id"] for line in out.splitlines()]

    def in_topic(self, name: str) -> list[bytes]:
        consumer, out = self.log.consumer("look"), []
        for p in range(2):
            tp = TopicPartition(PREFIX + name, p)
            first, end = self.log.admin().bounds([tp])[tp]
            out += [r.value for _, r in sorted(consumer.fetch(tp, range(first, end), 5.0).items())]
        return out

    def audit(self) -> list[dict]:
        path = self.folder / "dead-audit.jsonl"
        return [json.loads(x) for x in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def desk(tmp_path, redis_url, monkeypatch, capsysbinary):
    monkeypatch.setenv("TIDE_REDIS_URL", redis_url)
    monkeypatch.setenv("TIDE_REDIS_NAMESPACE", f"n{abs(hash(str(tmp_path)))}")
    monkeypatch.delenv("TIDE_DEBUG", raising=False)
    return Desk(tmp_path, capsysbinary)


def test_list_filters_by_each_thing_it_offers(desk):
    first = desk.bury(b"{")
    second = desk.bury(raw("e2"), stage="mysql.7", code="store_refused", user=b"u2", partition=1)
    third = desk.bury(HOSTILE, code="not_utf8", user=b"u3")
    assert desk.listed() == [first, second, third]
    assert desk.listed("--limit", "1") == [third]
    assert desk.listed("--stage", "mysql") == desk.listed("--stage", "mysql.7") == [second]
    assert desk.listed("--code", "not_utf8") == [third]
    assert desk.listed("--user", "u2") == [second]
    assert desk.listed("--topic", "events") == [first, second, third]
    assert desk.listed("--topic", "backfill") == []
    assert desk.listed("--since", "2025-10-09T08:54:01Z", "--until", "2025-10-09T08:54:02Z") == [second]


def test_a_table_holds_no_orders_to_the_terminal(desk):
    desk.bury(HOSTILE, user=HOSTILE)
    for words in (("list",), ("show", "events:0:0")):
        code, out, _ = desk(*words)
        assert code == 0
        assert "\x1b" not in out
        assert "events:0:0" in out


def test_show_gives_the_bytes_as_they_are(desk):
    name = desk.bury(HOSTILE)
    assert desk("show", name, "--raw")[0] == 0
    assert desk.out == HOSTILE
    _, out, _ = desk("show", name, "--json")
    (letter,) = json.loads(out)["letters"]
    assert bytes.fromhex(letter["value_hex"]) == HOSTILE
    assert letter["headers"]["tide-error-code"] == "not_json"


def test_an_edit_goes_back_under_the_letter_s_own_name(desk, tmp_path):
    name, other = desk.bury(b"{"), desk.bury(b"[")
    new = tmp_path / "new"
    new.write_bytes(raw("mended") + b"\n")
    code, out, err = desk("replay", name, "--edit", str(new))
    assert code == 0, err
    assert "replayed 1 dead letters" in out
    assert desk.in_topic("retry.1s") == [raw("mended")]
    assert desk.listed() == [other]
    (line,) = desk.audit()
    assert (line["action"], line["id"], line["edited"]) == ("replay", name, True)
    assert "u1" not in json.dumps(line)
    # What was replayed can still be asked for, by its trail.
    assert "replay by" in desk("show", name)[1]


def test_an_edit_that_would_be_refused_again_changes_nothing(desk, tmp_path):
    name = desk.bury(b"{")
    new = tmp_path / "new"
    new.write_bytes(b'{"event_id":"e1"}')
    code, _, err = desk("replay", name, "--edit", str(new))
    assert code == 1
    assert name in err
    assert "refused again" in err
    assert err.count("\n") == 1
    assert desk.listed() == [name]
    assert desk.in_topic("retry.1s") == desk.audit() == []


def test_edits_by_the_hundred_come_from_the_list_s_own_lines(desk, tmp_path):
    names = [desk.bury(b"bad %d" % n) for n in range(3)]
    _, out, _ = desk("list", "--json", "--values")
    lines = [json.loads(x) for x in out.splitlines()]
    for n, line in enumerate(lines[:2]):
        line["value"] = raw(f"e{n}").decode()
    edits = tmp_path / "edits.jsonl"
    edits.write_text("\n".join(json.dumps(x) for x in lines[:2]))
    assert desk("replay", "--edit", str(edits))[0] == 0
    assert desk.in_topic("retry.1s") == [raw("e0"), raw("e1")]
    assert desk.listed() == names[2:]


@pytest.mark.parametrize("command", ["replay", "purge"])
def test_without_a_choice_nothing_happens(desk, command):
    name = desk.bury(b"{")
    code, _, err = desk(command)
    assert code == 1
    assert "--all" in err
    code, out, _ = desk(command, "--dry-run")
    assert code == 0
    assert "1 dead letters" in out
    assert desk.listed() == [name]
    assert desk.audit() == []


def test_purge_asks_first_and_leaves_the_others(desk, monkeypatch):
    names = [desk.bury(b"bad %d" % n, user=b"u%d" % n) for n in range(3)]
    code, _, err = desk("purge", "--user", "u1")  # no terminal to ask on
    assert code == 1
    assert "--yes" in err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda *_a, **_k: pytest.fail("--yes does not ask"))
    assert desk("purge", "--user", "u1", "--yes")[0] == 0
    assert sorted(desk.listed()) == [names[0], names[2]]
    assert sorted(desk.in_topic("dead")) == [b"bad 0", b"bad 2"]
    assert [(x["action"], x["id"]) for x in desk.audit()] == [("purge", names[1])]


def test_replayed_too_often_is_refused_until_forced(desk, monkeypatch):
    name = desk.bury(b"{")
    monkeypatch.setenv("TIDE_RETRY_MAX_REPLAYS", "1")
    assert desk("replay", name)[0] == 0
    desk.die_again()
    assert desk.listed() == [name]
    code, out, err = desk("replay", name)
    assert code == 1
    assert f"{name} has been 1 times" in err
    assert "1 refused" in out
    assert desk("replay", name, "--force")[0] == 0
    assert desk.listed() == []


def test_a_second_desk_is_refused_while_one_is_at_work(desk):
    name = desk.bury(b"{")
    with desks.Desk(settings_for("embedded", desk.folder), desk.log, desk.folder / "other.jsonl").alone():
        code, _, err = desk("replay", name)
        assert code == 1
        assert "another desk" in err
    assert desk("replay", name)[0] == 0


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("show", "nonsense"), "expected topic:partition:offset"),
        (("show", "events:0:999"), "there is no dead letter events:0:999"),
        (("replay", "events:0:999"), "there is no dead letter events:0:999"),
        (("list", "--since", "yesterday"), "--since"),
        (("list", "--since", "1h", "--until", "2h"), "--until"),
        (("replay", "--edit", "nowhere", "--all"), "--edit nowhere"),
        (("allow", "--stage", "nonsense"), "--stage"),
        (("allow", "--stage", "parse", "--for", "soon"), "--for"),
    ],
)
def test_wrong_words_are_one_line(desk, words, part):
    desk.bury(b"{")
    code, _, err = desk(*words)
    assert code == 1
    assert part in err
    assert err.count("\n") == 1


def test_alarms_say_what_is_stopped_and_allowed(desk):
    assert desk("alarms")[:2] == (0, "no stage is stopped\n")
    assert desk("allow", "--stage", "parse", "--for", "10m")[0] == 0
    code, out, _ = desk("alarms", "--json")
    assert code == 0
    assert set(json.loads(out)["allowed"]) == {"parse"}
    assert desk("allow", "--stage", "parse", "--for", "0s")[0] == 0
    assert json.loads(desk("alarms", "--json")[1])["allowed"] == {}


def test_without_a_log_it_says_so(tmp_path, capsys):
    assert main(["dead", "list", "--data-dir", str(tmp_path / "none")]) == 1
    assert "there is no log" in capsys.readouterr().err
