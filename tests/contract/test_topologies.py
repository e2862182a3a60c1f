"""The topologies as streamparse sees them: they load, their scripts exist on a worker, and no stream ends nowhere."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
NAMES = sorted(p.stem for p in (ROOT / "topologies").glob("*.py") if "Topology)" in p.read_text("utf-8"))


@pytest.fixture
def load(monkeypatch):
    """Streamparse's own loader, with sys.path and sys.modules as they were afterwards."""
    from streamparse.util import get_topology_from_file

    monkeypatch.setattr(sys, "path", sys.path[:])
    before = set(sys.modules)

    def loaded(name):
        return get_topology_from_file(str(ROOT / "topologies" / f"{name}.py"))

    yield loaded
    for name in set(sys.modules) - before:
        if name in {*NAMES, "parallelism"}:
            del sys.modules[name]


def scripts(topology):
    """Component name -> what `streamparse_run` is called with."""
    thrift = {**topology.thrift_spouts, **topology.thrift_bolts}
    found = {}
    for name, component in thrift.items():
        spec = component.bolt_object if name in topology.thrift_bolts else component.spout_object
        found[name] = (spec.shell.execution_command, spec.shell.script)
    return found


def test_there_are_topologies():
    assert {"events", "redrive"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_script_is_a_class_that_workers_get(load, name):
    for component, (command, script) in scripts(load(name)).items():
        assert command == "streamparse_run", component
        module, _, cls = script.rpartition(".")
        assert not script.startswith("src."), script
        path = ROOT / "src" / Path(*module.split(".")).with_suffix(".py")
        assert path.is_file(), script
        assert f"class {cls}(" in path.read_text("utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_every_stream_is_read_by_somebody(load, name):
    """What is emitted to nobody is acked and gone."""
    topology = load(name)
    declared, read = set(), set()
    for source, component in {**topology.thrift_spouts, **topology.thrift_bolts}.items():
        declared |= {(source, stream) for stream in component.common.streams}
    for bolt in topology.thrift_bolts.values():
        read |= {(s.componentId, s.streamId) for s in bolt.common.inputs}
    assert declared == read


@pytest.mark.parametrize("name", NAMES)
def test_a_tuple_is_one_packed_text(load, name):
    """Tuples of it need no class known to Kryo when they go from worker to worker (components/bolts/storm.py sees to the type)."""
    topology = load(name)
    for component in {**topology.thrift_spouts, **topology.thrift_bolts}.values():
        for stream in component.common.streams.values():
            assert len(stream.output_fields) == 1
    assert not [key for key in topology.config if "kryo" in key]


@pytest.mark.parametrize("name", NAMES)
def test_failures_go_to_the_one_place_that_writes_them(load, name):
    topology = load(name)
    readers = {
        bolt_name
        for bolt_name, bolt in topology.thrift_bolts.items()
        for s in bolt.common.inputs
        if s.streamId == "failed"
    }
    assert readers == {"divert"}


@pytest.mark.parametrize("name", NAMES)
def test_a_topology_file_is_not_named_like_a_package(name):
    assert not (ROOT / "src" / name).exists()
    assert not (ROOT / name).exists()


def test_parallelism_is_said_for_every_environment(load):
    for name in NAMES:
        load(name)
    import parallelism

    environments = set(json.loads((ROOT / "config.json").read_text("utf-8"))["envs"])
    said = {
        k: v
        for k, v in vars(parallelism).items()
        if isinstance(v, dict)
        and k.isupper()
        and k not in ("TOPOLOGY", "UNHURRIED")
        and all(isinstance(n, int) for n in v.values())
    }
    assert {"SPOUT", "PARSE", "DIVERT"} <= set(said)
    for component, by_environment in said.items():
        assert set(by_environment) == environments, component
        assert min(by_environment.values()) >= 1


def test_every_environment_has_valid_settings():
    from clicktide.settings import Settings, options_of

    path = ROOT / "config.json"
    for env in json.loads(path.read_text("utf-8"))["envs"]:
        options = options_of(path, env)
        Settings({k.removeprefix("tide."): v for k, v in options.items() if k.startswith("tide.")})


def test_the_message_timeout_outlasts_what_a_slice_may_take(load):
    """Else a slow store makes a slice come again while it is still being worked on."""
    from clicktide.settings import Settings

    s = Settings({})
    slowest = 2 * s.number("redis.timeout_s") + 2 * s.number("sql.timeout_s") + 2 * 15.0
    for name in NAMES:
        assert load(name).config["topology.message.timeout.secs"] >= slowest
