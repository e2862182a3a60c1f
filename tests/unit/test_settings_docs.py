"""The pages that say what the registries say: settings, fields, rejection codes, error codes, classes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cli import settings as command
from clicktide import errors, event, parse, row
from clicktide.errors import ClicktideError, SettingError
from clicktide.parse import CODES
from clicktide.retry.policy import CLASSES
from clicktide.settings import REGISTRY, Settings, from_environment, from_storm, options_of

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"


def table(title):
    """Rows of all tables under a heading of semantics.md, as lists of cells."""
    text = (DOCS / "semantics.md").read_text("utf-8")
    section = re.split(r"^## ", text, flags=re.MULTILINE)
    (found,) = [s for s in section if s.startswith(title + "\n")]
    rows = [line.strip("|").split("|") for line in found.splitlines() if line.startswith("| `")]
    return [[cells[0].strip().strip("`"), *(cell.strip() for cell in cells[1:])] for cells in rows]


def test_the_settings_page_is_what_the_registry_says():
    assert (DOCS / "settings.md").read_text("utf-8") == command.page(), (
        "run ./tide settings > docs/settings.md"
    )


def test_the_page_names_every_setting_and_its_variable(capsys):
    command.main()
    printed = capsys.readouterr().out
    for name in REGISTRY:
        assert f"`tide.{name}`" in printed
        assert f"`TIDE_{name.upper().replace('.', '_')}`" in printed


def test_every_setting_is_described():
    for s in REGISTRY.values():
        assert s.help.endswith("."), s.name
        assert "|" not in s.help + s.unit, s.name
        if s.default != "":
            assert s.parse(s.default) == s.default, s.name


def test_rejection_codes():
    assert dict(table("Rejection codes")) == CODES


def subclasses(cls):
    return {cls}.union(*(subclasses(c) for c in cls.__subclasses__()))


def test_error_codes():
    declared = {c.code: c.retriable for c in subclasses(ClicktideError) if c.__module__ == errors.__name__}
    rows = table("Error codes")
    assert {cells[0]: cells[1] == "yes" for cells in rows if len(cells) == 3} == declared
    assert {cells[0] for cells in rows if len(cells) == 2} == {
        "id_conflict",
        "exhausted",
        "poison",
        "kills_worker",
    }


def test_classes():
    assert [cells[0] for cells in table("Classes")] == list(CLASSES)


def test_fields():
    assert [cells[0] for cells in table("The event")] == list(event.Event.__struct_fields__)
    text = (DOCS / "semantics.md").read_text("utf-8")
    assert f"at most {event.MAX_BYTES} bytes" in text
    assert ", ".join(row.TYPES) in text
    assert ", ".join(row.GENDERS) in text
    assert " or ".join(map(str, event.VERSIONS)) in text
    assert event.MAX_AMOUNT == 10**12
    assert parse.CODES


# -- the registry itself


@pytest.mark.parametrize(
    ("name", "raw", "value"),
    [
        ("slice.records", "100", 100),
        ("slice.records", 100, 100),
        ("slice.records", 100.0, 100),
        ("claims.window_h", "0.5", 0.5),
        ("redis.namespace", "x", "x"),
        ("redis.namespace", 5, "5"),
        ("topics.partitions", "16", 16),
    ],
)
def test_values(name, raw, value):
    found = Settings({name: raw})[name]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("name", "raw", "expected"),
    [
        ("slice.records", "many", "a whole number"),
        ("slice.records", "1.5", "a whole number"),
        ("slice.records", True, "a whole number"),
        ("slice.records", None, "a whole number"),
        ("slice.records", "0", "at least 1"),
        ("slice.records", "nan", "a whole number"),
        ("claims.window_h", "inf", "a number"),
        ("claims.window_h", [], "a number"),
        ("redis.namespace", {}, "text"),
        ("redis.namespace", True, "text"),
        ("topics.partitions", 12, "a power of two"),
        ("log.adapter", "rabbit", "embedded or kafka-python or confluent"),
        ("sql.dsns", "here", "SQLAlchemy URLs"),
        ("http.port", 70000, "a port"),
    ],
)
def test_bad_values_are_refused_by_name(name, raw, expected):
    with pytest.raises(SettingError, match=rf"setting {re.escape(name)}: expected {expected}"):
        Settings({name: raw})


def test_unknown_names_are_refused():
    with pytest.raises(SettingError, match=r"unknown setting 'slice\.size'"):
        Settings({"slice.size": 1})
    with pytest.raises(SettingError, match="TIDE_SLICE_SIZE"):
        from_environment({"TIDE_SLICE_SIZE": "1"}, {})


def test_where_settings_come_from():
    storm = {"tide.slice.records": 7, "topology.workers": 3}
    assert from_storm(storm).integer("slice.records") == 7
    assert from_storm(storm).options() == {"tide.slice.records": 7}
    found = from_environment({"TIDE_SLICE_RECORDS": "9", "TIDE_ENV": "stack", "PATH": "x"}, storm)
    assert found.integer("slice.records") == 9


def test_options_of_a_config_file(tmp_path):
    path = tmp_path / "config.json"
    for text in ("", "[]", "{}", '{"envs": 5}', '{"envs": {"a": {"options": null}}}', '{"envs": {"a": 5}}'):
        path.write_text(text)
        with pytest.raises(SettingError, match=r"config\.json"):
            options_of(path, "nowhere")
    path.write_text('{"envs": {"a": {"options": {"tide.group": "g"}}}}')
    assert options_of(path, "a") == {"tide.group": "g"}
    with pytest.raises(SettingError, match=r"missing\.json"):
        options_of(tmp_path / "missing.json", "a")
