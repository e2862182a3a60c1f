"""Jar lists: what is on them, and that nothing else passes."""

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.stack import jars
from deploy.stack.errors import StackError
from deploy.stack.jars import LISTS, SETS, differences, ensure_jars, jar_folder, listed_sums, read_checksums
from deploy.stack.servers.base import silent
from deploy.stack.settings import PROJECT, StackSettings, settings_from
from deploy.storm.home import STORM_VERSION

GOOD = hashlib.sha256(b"good").hexdigest()


@pytest.fixture
def settings(tmp_path: Path) -> StackSettings:
    return replace(settings_from({"HOME": str(tmp_path)}), home=tmp_path / "stack", cache=tmp_path / "cache")


@pytest.fixture
def one_jar_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "kafka.sha256").write_text(f"{GOOD}  a.jar\n")
    monkeypatch.setattr(jars, "LISTS", tmp_path / "lists")
    return tmp_path / "lists"


def maven_that_brings(content: bytes, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands in for Maven; the calls that it got."""
    calls: list[str] = []

    def maven(name: str, folder: Path, _say: object, *, expected: int) -> None:
        calls.append(f"{name} {expected}")
        (folder / "a.jar").write_bytes(content)

    monkeypatch.setattr(jars, "_maven", maven)
    return calls


def test_the_committed_lists_hold_what_the_servers_need() -> None:
    assert "kafka_2.13-4.1.1.jar" in listed_sums("kafka")
    for part in ("client", "server", "core", "shaded-deps"):
        assert f"storm-{part}-{STORM_VERSION}.jar" in listed_sums("storm")
    assert f"flux-core-{STORM_VERSION}.jar" in listed_sums("storm")


def test_one_storm_version_everywhere() -> None:
    assert f"<storm.version>{STORM_VERSION}<" in (LISTS / "storm.pom.xml").read_text()
    clojure = (PROJECT / "project.clj").read_text()
    assert re.findall(r'org\.apache\.storm/storm-\w+ "([^"]+)"', clojure) == [STORM_VERSION] * 2


@pytest.mark.parametrize("name", SETS)
def test_no_registry_is_named(name: str) -> None:
    text = (LISTS / f"{name}.pom.xml").read_text().replace("http://maven.apache.org/POM/4.0.0", "")
    assert "://" not in text


@pytest.mark.parametrize("line", ["abc  a.jar", f"{GOOD} a.jar", f"{GOOD}  ../a.jar", f"{GOOD}  a.zip"])
def test_a_bad_line_is_refused(line: str) -> None:
    with pytest.raises(StackError, match="line 2"):
        read_checksums(f"{GOOD}  x.jar\n{line}\n")


def test_differences_name_the_jar(tmp_path: Path) -> None:
    (tmp_path / "good.jar").write_bytes(b"good")
    (tmp_path / "bad.jar").write_bytes(b"bad")
    (tmp_path / "extra.jar").write_bytes(b"")
    found = differences(tmp_path, {"good.jar": GOOD, "bad.jar": GOOD, "gone.jar": GOOD})
    assert [line.split()[0] for line in found] == ["gone.jar", "extra.jar", "bad.jar"]
    assert GOOD in found[-1]


@pytest.mark.usefixtures("one_jar_list")
def test_jars_come_once_and_then_from_the_cache(
    settings: StackSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = maven_that_brings(b"good", monkeypatch)
    assert (ensure_jars(settings, "kafka", silent) / "a.jar").read_bytes() == b"good"
    ensure_jars(settings, "kafka", silent)
    another_checkout = replace(settings, home=settings.home / "another")
    assert (ensure_jars(another_checkout, "kafka", silent) / "a.jar").read_bytes() == b"good"
    assert calls == ["kafka 1"]


@pytest.mark.usefixtures("one_jar_list")
def test_a_jar_that_differs_is_never_used(settings: StackSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    maven_that_brings(b"evil", monkeypatch)
    with pytest.raises(StackError, match=r"a\.jar has SHA-256"):
        ensure_jars(settings, "kafka", silent)
    assert not jar_folder(settings, "kafka").exists()
    assert not list((settings.cache / "jars").iterdir()), "nor kept in the cache"


@pytest.mark.usefixtures("one_jar_list")
def test_a_cache_that_was_tampered_with_is_filled_anew(
    settings: StackSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = maven_that_brings(b"good", monkeypatch)
    ensure_jars(settings, "kafka", silent)
    (cached,) = (settings.cache / "jars").glob("*/a.jar")
    cached.unlink()
    cached.write_bytes(b"evil")
    ensure_jars(replace(settings, home=settings.home / "another"), "kafka", silent)
    assert cached.read_bytes() == b"good"
    assert len(calls) == 2
