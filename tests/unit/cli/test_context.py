"""Where settings come from, in which order, and what a running demo adds."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from cli import context
from clicktide.errors import SettingError
from clicktide.settings import Settings
from clicktide.sql import SqlStore, migrate, sqlite_dsn
from deploy.embedded import record
from deploy.embedded.places import Places


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A config.json of our own, and no TIDE_* of the shell."""
    for name in [n for n in os.environ if n.startswith("TIDE_")]:
        monkeypatch.delenv(name)
    file = tmp_path / "config.json"
    file.write_text(
        json.dumps({"envs": {n: {"options": {"tide.slice.records": 7}} for n in ("embedded", "stack")}})
    )
    return {"TIDE_CONFIG": str(file)}


def run_file(folder: Path, **more) -> None:
    folder.mkdir(exist_ok=True)
    record.write(
        Places(folder).run_file, {**record.identity(os.getpid()), "urls": {"collector": "http://x"}, **more}
    )


def test_the_environment_s_options_are_read(config):
    assert context.settings_for("stack", environ=config).integer("slice.records") == 7


def test_what_a_data_directory_was_laid_out_with_holds(config, tmp_path):
    places = Places(tmp_path / "d")
    places.root.mkdir()

    def shards():
        return context.settings_for("embedded", places.root, config).integer("shards.count")

    places.shards[0].touch()  # a start that got no further
    assert shards() == Settings({}).integer("shards.count")
    for path in places.shards:
        migrate(sqlite_dsn(str(path)))
    store = SqlStore(Settings({"sql.dsns": places.options()["tide.sql.dsns"], "shards.count": 4}))
    store.prepare()
    store.close()
    assert shards() == 4
    assert context.settings_for("stack", environ=config).integer("shards.count") != 4


def test_a_variable_wins_over_config_json(config):
    assert (
        context.settings_for("stack", environ={**config, "TIDE_SLICE_RECORDS": "9"}).integer("slice.records")
        == 9
    )


def test_variables_of_the_command_line_are_no_settings(config):
    environ = {**config, "TIDE_DEBUG": "1", "TIDE_ENV": "stack", "TIDE_STACK_KAFKA_PORT": "1"}
    assert context.settings_for(environ=environ).text("log.path") == ""


def test_an_unknown_variable_is_named(config):
    with pytest.raises(SettingError, match="TIDE_SLICE_RECORD"):
        context.settings_for("stack", environ={**config, "TIDE_SLICE_RECORD": "9"})


def test_an_unknown_environment_is_named(config):
    with pytest.raises(SettingError, match="unknown environment 'moon'"):
        context.settings_for("moon", environ=config)


def test_embedded_knows_its_stores_by_the_data_directory(config, tmp_path):
    found = context.settings_for("embedded", tmp_path / "d", environ=config)
    assert found.text("log.path") == str(tmp_path / "d" / "log.sqlite")
    assert len(found.text("sql.dsns").split()) == 2


def test_a_running_demo_s_options_win_over_config_json(config, tmp_path):
    run_file(tmp_path / "d", options={"tide.slice.records": 11})
    assert context.settings_for("embedded", tmp_path / "d", environ=config).integer("slice.records") == 11


def test_a_dead_demo_s_record_counts_for_nothing(config, tmp_path):
    run_file(tmp_path / "d", options={"tide.slice.records": 11}, started="long ago")
    assert context.running(tmp_path / "d") is None
    assert context.settings_for("embedded", tmp_path / "d", environ=config).integer("slice.records") == 7


def test_the_collector_is_the_running_demo_s(tmp_path):
    run_file(tmp_path / "d")
    assert context.collector_url("embedded", tmp_path / "d") == "http://x"


def test_without_a_demo_the_collector_is_asked_for_in_one_line(tmp_path):
    with pytest.raises(SettingError, match=r"\./tide demo --no-traffic"):
        context.collector_url("embedded", tmp_path)


def test_blanks_in_the_path_do_not_split_the_dsns(tmp_path):
    options = Places(tmp_path / "my data").options()
    assert len(options["tide.sql.dsns"].split()) == 2
    assert " " not in options["tide.redis.url"]


def test_a_long_path_gets_a_short_socket(tmp_path):
    deep = Places(tmp_path / ("x" * 120))
    assert len(os.fsencode(deep.socket)) < 100
    assert Places(tmp_path / ("y" * 120)).socket != deep.socket
    assert Places(Path("/d")).socket == Path("/d/redis/redis.sock")
