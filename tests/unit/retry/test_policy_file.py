"""The policy file: the one that ships, and those that are refused."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from cli import given
from clicktide.errors import SettingError
from clicktide.retry import policy_file
from clicktide.retry.policy import FATAL, STORE_WIDE, UNKNOWN, from_settings
from clicktide.settings import REGISTRY, Settings, from_storm
from localstorm.plan import Request, load

SHIPPED = Path(__file__).resolve().parents[3] / "retry" / "policy.toml"


def policy_of(tmp_path, text):
    path = tmp_path / "policy.toml"
    path.write_text(text, "utf-8")
    return from_settings(Settings(policy_file.read(path)))


def test_the_one_that_ships_says_the_defaults_and_all_of_them():
    found = policy_file.read(SHIPPED)
    # Where the desk writes its trail is the machine's matter, not the policy's.
    assert {n for n in REGISTRY if n.startswith("retry.")} - {"retry.audit_file"} == found.keys()
    assert found == {n: REGISTRY[n].default for n in found}
    assert policy_file.options(SHIPPED).keys() == {f"tide.{n}" for n in found}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("attempts = 2\nunknown_attempts = 3", "retry.unknown_attempts"),
        ("deadline_h = 168.0", "retry.deadline_h"),
        ("attemps = 2", "retry.attemps"),
        ('attempts = "many"', "retry.attempts"),
        ('tiers = ["10s", "1s"]', "retry.tiers"),
        ('tiers = ["1s", "5s"]', "retry.tiers"),
        ('tiers = ["1s", "10s"]\npark_tier = "1m"', "retry.park_tier"),
        ("[dead]\nratio = 2.0", "retry.dead_ratio"),
        ("[dead]\nbursts = 2", "retry.dead_bursts"),
        ('[classes]\nnot_jsn = "fatal"', "retry.classes"),
        ('[classes]\nstore_unavailable = "fatal"', "retry.classes"),
        ('[classes]\nnot_json = "store_wide"', "retry.classes"),
        ("attempts = ", "TOML"),
    ],
)
def test_refused_with_the_name(tmp_path, text, says):
    with pytest.raises(SettingError, match=r"policy\.toml") as e:
        policy_of(tmp_path, text)
    assert says in str(e.value)
    assert "\n" not in str(e.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(SettingError, match=r"policy\.toml"):
        policy_file.read(tmp_path / "policy.toml")


def test_tiers_and_classes_are_what_decides(tmp_path):
    made = policy_of(
        tmp_path, 'tiers = ["10s", "10m"]\npark_tier = "10m"\n[classes]\nstore_refused = "unknown"'
    )

    def topic(kind, code, attempt=0, tier=None):
        return made.decide(kind, code, attempt, tier, 1000, 1000, lambda _a, b: b).topic

    assert [topic(FATAL, "store_refused", n) for n in range(5)] == [
        "retry.10s",
        "retry.10m",
        "retry.10m",
        "retry.10m",
        "dead",
    ]
    assert topic(FATAL, "id_conflict") == "dead"
    assert [topic(STORE_WIDE, "store_unavailable", 0, t) for t in (None, "1s", "10s", "1m", "10m")] == [
        "retry.10s",
        "retry.10s",
        "retry.10m",
        "retry.10m",
        "retry.10m",
    ]
    assert topic(UNKNOWN, "error") == "retry.10s"


# -- what the command line says over the file


def conf_of(*options: str) -> Settings:
    """What a worker of the topology gets when it is started with these `-o`."""
    request = Request(project=SHIPPED.parent.parent, name="events", env="embedded", options=options)
    return from_storm(load(request).conf)


def test_the_command_line_wins_over_the_file():
    assert from_settings(conf_of()).attempts == 8
    changed = from_settings(conf_of("tide.retry.attempts=5", "tide.retry.dead_burst=7"))
    assert (changed.attempts, changed.dead.burst) == (5, 7)


def test_streamparse_gives_the_command_line_the_last_word_too():
    """`./tide sparse` is streamparse's: its own function, on our topology's file values."""
    streamparse = importlib.import_module("streamparse.cli.common")
    env = {"options": {"tide.retry.attempts": 2}, "use_virtualenv": False, "user": "u", "workers": []}
    topology = type("T", (), {"config": dict(policy_file.options(SHIPPED)), "specs": []})
    found = streamparse.resolve_options({"tide.retry.attempts": 5}, env, topology, "events", local_only=True)
    assert found["tide.retry.attempts"] == 5
    found = streamparse.resolve_options({}, env, topology, "events", local_only=True)
    assert found["tide.retry.attempts"] == 8, "the file over config.json"


@pytest.mark.parametrize(
    "options",
    [
        ["-o", "tide.retry.deadline_h=500"],
        ["-o", "tide.retry.unknown_attempts=9"],
        ["--option=tide.retry.attempts=none"],
        ["-o", "tide.retry.atempts=3"],
        ["-otide.topics.retention_h=2"],
    ],
)
def test_what_contradicts_itself_is_refused_before_anything_starts(options):
    with pytest.raises(SettingError):
        given.check(["run", *options], SHIPPED.parent.parent, "stack")
    given.check(["run", "-o", "tide.retry.attempts=9", "-o", "x=1"], SHIPPED.parent.parent, "stack")
    given.check(options, Path("/nowhere"), "stack")
