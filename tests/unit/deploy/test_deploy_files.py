"""Compose, Kubernetes and systemd files: what can be known of them without running any of the three."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import Any
from urllib.parse import urlsplit

import pytest
from ruamel.yaml import YAML

from clicktide.settings import REGISTRY, from_environment, from_storm, options_of
from deploy.stack.settings import PROJECT
from deploy.storm.home import STORM_VERSION
from services.application import ROLES

DEPLOY = PROJECT / "deploy"
PORTS = {
    "collector": REGISTRY["http.port"].default,
    "query": REGISTRY["http.query_port"].default,
    "dashboard": REGISTRY["http.dashboard_port"].default,
}


def yaml_of(name: str) -> list[Any]:
    return list(YAML(typ="safe").load_all((DEPLOY / name).read_text("utf-8")))


def tide(environment: dict[str, Any]) -> dict[str, str]:
    return {k: str(v) for k, v in environment.items() if k.startswith("TIDE_")}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml_of("compose/compose.yaml")[0]["services"]


def test_compose_names_only_what_is_there(compose):
    for name, service in compose.items():
        assert set(service.get("depends_on", [])) <= compose.keys(), name
        assert re.search(r":[\w.]+$", service["image"]), f"{name}: no version"
        for volume in service.get("volumes", []):
            if volume.startswith("./"):
                assert (DEPLOY / "compose" / volume.split(":")[0]).is_file(), volume
        if "build" in service:
            assert (PROJECT / service["build"]["dockerfile"]).is_file()
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name}: {port} is open to the world"


def test_composes_settings_are_settings(compose):
    options = options_of(DEPLOY / "compose" / "config.json", "cluster")
    settings = from_storm(options)
    hosts = {host.partition(":")[0] for host in settings.text("kafka.bootstrap").split(",")}
    urls = [settings.text("redis.url"), *settings.text("sql.dsns").split()]
    assert hosts | {urlsplit(url).hostname for url in urls} <= compose.keys()
    for role in ROLES:
        environment = tide(compose[role]["environment"])
        assert from_environment(environment, options).text("keys.file"), "they listen beyond loopback"
        assert compose[role]["command"][:5] == ["python", "-P", "-m", "services", role]
        assert compose[role]["ports"] == [f"127.0.0.1:{PORTS[role]}:{PORTS[role]}"]
        assert environment["TIDE_CONFIG"] in {v.split(":")[1] for v in compose[role]["volumes"]}


def test_composes_config_is_a_projects_config():
    ours = json.loads((PROJECT / "config.json").read_text("utf-8"))
    theirs = json.loads((DEPLOY / "compose" / "config.json").read_text("utf-8"))
    assert {k: v for k, v in theirs.items() if k != "envs"} == {k: v for k, v in ours.items() if k != "envs"}


def test_versions_are_those_of_the_stack(compose):
    text = (DEPLOY / "compose" / "storm.Dockerfile").read_text("utf-8")
    assert f"storm:{STORM_VERSION} " in text
    assert f"/apache-storm-{STORM_VERSION} " in text
    kafka = (DEPLOY / "stack" / "jarsets" / "kafka.pom.xml").read_text("utf-8")
    assert f"<version>{compose['kafka']['image'].partition(':')[2]}</version>" in kafka


def test_kubernetes_settings_ports_and_probes_are_ours():
    by_kind: dict[str, dict[str, Any]] = {}
    for document in yaml_of("kubernetes/clicktide.yaml"):
        by_kind.setdefault(document["kind"], {})[document["metadata"]["name"]] = document
    settings = from_environment(by_kind["ConfigMap"]["clicktide"]["data"], {})
    assert settings.text("keys.file"), "they listen beyond loopback"
    assert by_kind["Deployment"].keys() == by_kind["Service"].keys() == {f"clicktide-{r}" for r in ROLES}
    for role in ROLES:
        deployment = by_kind["Deployment"][f"clicktide-{role}"]["spec"]
        labels = deployment["template"]["metadata"]["labels"]
        assert deployment["selector"]["matchLabels"] == labels
        assert by_kind["Service"][f"clicktide-{role}"]["spec"]["selector"] == labels
        (container,) = deployment["template"]["spec"]["containers"]
        assert container["command"] == ["python", "-P", "-m", "services", role]
        assert [p["containerPort"] for p in container["ports"]] == [PORTS[role]]
        assert by_kind["Service"][f"clicktide-{role}"]["spec"]["ports"][0]["port"] == PORTS[role]
        assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"
        assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"
        for variable in container.get("env", []):
            from_environment({variable["name"]: "mysql://u@h/d"}, {})


def test_systemds_environment_is_one_of_settings():
    lines = (DEPLOY / "systemd" / "clicktide.env").read_text("utf-8").splitlines()
    pairs = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    settings = from_environment({k: v.strip('"') for k, v in pairs.items()}, {})
    assert settings.text("keys.file")
    assert len(settings.text("sql.dsns").split()) == 2


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_systemd_understands_the_units(tmp_path):
    for path in (DEPLOY / "systemd").iterdir():
        # The programs are where an installation has them, not here.
        text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", path.read_text("utf-8"), flags=re.MULTILINE)
        (tmp_path / path.name.replace("@.", "@query.")).write_text(text)
    units = sorted(p for p in tmp_path.iterdir() if p.suffix in (".service", ".timer"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *map(str, units)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if any(unit.name in line for unit in units)]
    assert not ours, done.stderr
    assert len(units) == 4
