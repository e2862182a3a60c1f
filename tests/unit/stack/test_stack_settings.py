"""The stack's settings: defaults, environment, and what is refused."""

from dataclasses import fields
from pathlib import Path

import pytest

from deploy.stack.errors import StackError
from deploy.stack.settings import PROJECT, StackSettings, cache_folder, settings_from

HOME = {"HOME": "/home/ann"}


def test_defaults_need_no_environment() -> None:
    settings = settings_from(HOME, project=Path("/p"))
    assert settings.home == Path("/p/.stack")
    assert settings.cache == Path("/home/ann/.cache/clicktide")
    assert (settings.kafka_port, settings.redis_port, settings.nimbus_port) == (19092, 16379, 6627)
    assert (settings.mariadb_1_port, settings.mariadb_2_port) == (13306, 13307)
    assert settings.worker_slots >= 4


def test_the_environment_sets_and_the_argument_wins() -> None:
    environment = {**HOME, "TIDE_STACK_HOME": "/a", "TIDE_STACK_KAFKA_PORT": "20000", "TIDE_CACHE": "/c"}
    assert settings_from(environment).home == Path("/a")
    assert settings_from(environment, home=Path("/b")).home == Path("/b")
    assert settings_from(environment).kafka_port == 20000
    assert settings_from(environment).cache == Path("/c")


@pytest.mark.parametrize("text", ["", "x", "-1", "0", "65536", "1.5"])
def test_a_bad_number_is_refused_by_name(text: str) -> None:
    with pytest.raises(StackError, match=r"TIDE_STACK_KAFKA_PORT.*1 to 65535"):
        settings_from({**HOME, "TIDE_STACK_KAFKA_PORT": text})


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(StackError, match=r"TIDE_STACK_KAFKA_PROT is no setting"):
        settings_from({**HOME, "TIDE_STACK_KAFKA_PROT": "1"})


def test_two_settings_on_one_port_are_refused() -> None:
    with pytest.raises(StackError, match=r"TIDE_STACK_KAFKA_PORT and TIDE_STACK_REDIS_PORT.*16379"):
        settings_from({**HOME, "TIDE_STACK_KAFKA_PORT": "16379"})


def test_the_users_cache_folder_is_honoured() -> None:
    assert cache_folder({"XDG_CACHE_HOME": "/x", **HOME}) == Path("/x/clicktide")


def test_the_settings_are_a_value() -> None:
    settings = settings_from(HOME)
    assert settings == settings_from(HOME)
    assert isinstance(hash(settings), int)
    assert StackSettings.__doc__


def test_the_document_names_every_setting_and_every_default() -> None:
    text = (PROJECT / "docs" / "operations" / "stack.md").read_text()
    settings = settings_from(HOME)
    for item in fields(StackSettings):
        if item.name == "cache":
            continue
        assert item.name.upper() in text, item.name
        if item.name != "home":
            assert str(getattr(settings, item.name)) in text, item.name
