"""Reads a streamparse project's topology in a process of its own and writes it down as JSON.

Run as a script: `python -P loading.py REQUEST`, REQUEST being a JSON object (see `Request` in plan.py); the
answer, `{"plan": ...}` or `{"error": "one line", "traceback": ...}`, goes to the file it names. Being a
process keeps the project's modules out of the runner, and what the project prints off its answer. Needs
nothing of localstorm: only streamparse and the standard library.
"""

import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

VIRTUALENV_OPTIONS = (
    "install_virtualenv",
    "use_virtualenv",
    "virtualenv_flags",
    "virtualenv_root",
    "virtualenv_name",
)


class Unusable(Exception):
    """The project cannot be run as it is; the message is for the user."""


def read_config(path: str) -> dict[str, Any]:
    """The project's config.json."""
    try:
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
    except FileNotFoundError:
        raise Unusable(
            f"no config.json: {path} is not there; give a streamparse project's folder with --project"
        ) from None
    except (OSError, ValueError) as error:
        raise Unusable(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(config, dict) or not isinstance(config.get("topology_specs"), str):
        raise Unusable(f'{path} has no "topology_specs" (the folder of the topology files)')
    return config


def find_topology(config: dict[str, Any], name: str | None) -> tuple[str, Path]:
    """(name, file) of the topology: the one asked for, or the only one."""
    folder = Path(config["topology_specs"])
    names = sorted(file.stem for file in folder.glob("*.py") if file.stem != "__init__")
    if name is None:
        if len(names) != 1:
            found = ", ".join(names) or "none"
            raise Unusable(f"say which topology with -n NAME: {folder} has {found}")
        name = names[0]
    file = folder / f"{name}.py"
    if not file.is_file():
        raise Unusable(f"no topology {name!r} in {folder}: it has {', '.join(names) or 'none'}")
    return name, file.absolute()


def find_env(config: dict[str, Any], name: str | None) -> tuple[str | None, dict[str, Any]]:
    """(name, settings) of the environment; a config without any has an empty one."""
    envs = config.get("envs") or {}
    if name is None:
        if len(envs) > 1:
            raise Unusable(f"say which environment with -e NAME: config.json has {', '.join(envs)}")
        return next(iter(envs.items()), (None, {}))
    if name not in envs:
        raise Unusable(f"no environment {name!r} in config.json: it has {', '.join(envs) or 'none'}")
    return name, envs[name]


def import_topology(file: Path, src: Path) -> Any:
    """The first Topology subclass that the file's module holds, looked for as `sparse` does."""
    from streamparse.dsl.topology import Topology, TopologyType

    # Appended, as on a worker: an installed package of the same name wins there, too.
    sys.path.append(str(src))
    sys.path.append(str(file.parent))
    module = importlib.import_module(file.stem)
    if Path(module.__file__ or "").resolve() != file.resolve():
        raise Unusable(
            f"{file} is hidden by the module {module.__file__} of the same name; rename the topology file"
        )
    for value in vars(module).values():
        if isinstance(value, TopologyType) and value is not Topology:
            return value
    raise Unusable(f"{file} has no Topology subclass")


def parse_options(pairs: list[str]) -> dict[str, Any]:
    """-o key=value, the value being YAML as with `sparse`."""
    from ruamel import yaml  # slow to import, so only when an option is given

    options = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise Unusable(f"option {pair!r} is not of the form key=value")
        try:
            options[key] = yaml.YAML(typ="safe", pure=True).load(text)
        except yaml.error.YAMLError:
            raise Unusable(f"option {pair!r}: the value is not YAML") from None
    return options


def resolve_options(cli: dict[str, Any], env: dict[str, Any], topology: Any, name: str) -> dict[str, Any]:
    """streamparse's order: command line over topology over environment."""
    options: dict[str, Any] = dict(env.get("options") or {})
    if env.get("use_virtualenv", True) and env.get("virtualenv_root"):
        options["topology.python.path"] = "/".join([env["virtualenv_root"], name, "bin", "python"])
    log = env.get("log") or {}
    for key, value in (
        ("path", log.get("path") or env.get("log_path")),
        ("file", log.get("file") or env.get("log_file")),
        ("max_bytes", log.get("max_bytes")),
        ("backup_count", log.get("backup_count")),
        ("level", str(log["level"]).lower() if log.get("level") else None),
    ):
        if value:
            options[f"pystorm.log.{key}"] = value
    options.update({key: env[key] for key in VIRTUALENV_OPTIONS if key in env})
    options["sudo_user"] = env.get("user")
    options.update(topology.config)
    options.update(cli)
    if options.get("topology.debug"):
        options["pystorm.log.level"] = "debug"
    options["storm.workers.list"] = []
    for key in ("topology.acker.executors", "topology.workers"):
        if options.get(key) is None:
            options[key] = 1
    options.setdefault("sudo_user", "root")
    return options


def parallelism(spec: Any, env: str | None, wanted: dict[str, int]) -> int:
    """How many tasks a component gets."""
    par = wanted.get(spec.name, spec.par)
    if isinstance(par, dict):
        if env not in par:
            raise Unusable(
                f"component {spec.name!r} has no parallelism for environment {env!r}: par names {', '.join(par)}"
            )
        par = par[env]
    return int(par)


def grouping_of(grouping: Any) -> tuple[str, list[str]]:
    """(kind, fields) of a grouping as the DSL holds it."""
    for kind, value in vars(grouping).items():
        if value is not None and not kind.startswith("_"):
            if kind == "fields":
                return ("fields", list(value)) if value else ("global", [])
            if kind.startswith("custom"):
                raise Unusable("custom groupings are Java classes, which need a JVM: use a built-in grouping")
            return kind, []
    return "shuffle", []


def describe(spec: Any, env: str | None, wanted: dict[str, int]) -> dict[str, Any]:
    """One component as plain data."""
    from streamparse.dsl.spout import JavaSpoutSpec, ShellSpoutSpec

    shell = spec.component_object.shell
    if shell is None:
        java = getattr(spec.component_object.java_object, "full_class_name", None) or "serialized object"
        raise Unusable(
            f"component {spec.name!r} is a Java component ({java}), which needs a JVM: "
            "run this topology with `sparse run`"
        )
    inputs = []
    for source, grouping in spec.inputs.items():
        kind, fields = grouping_of(grouping)
        inputs.append(
            {"component": source.componentId, "stream": source.streamId, "kind": kind, "fields": fields}
        )
    return {
        "name": spec.name,
        "kind": "spout" if isinstance(spec, ShellSpoutSpec | JavaSpoutSpec) else "bolt",
        "command": shell.execution_command,
        "script": shell.script,
        "par": parallelism(spec, env, wanted),
        "config": json.loads(spec.config or "{}"),
        "outputs": {
            name: {"fields": list(info.output_fields), "direct": bool(info.direct)}
            for name, info in spec.outputs.items()
        },
        "inputs": inputs,
    }


def load(request: dict[str, Any]) -> dict[str, Any]:
    """The topology as plain data; raises Unusable."""
    os.chdir(request["project"])
    config = read_config(request["config"])
    name, file = find_topology(config, request["name"])
    env_name, env = find_env(config, request["env"])
    topology = import_topology(file, Path("src").absolute())
    wanted = request["par"]
    unknown = set(wanted) - {spec.name for spec in topology.specs}
    if unknown:
        names = ", ".join(spec.name for spec in topology.specs)
        raise Unusable(f"--par names {', '.join(sorted(unknown))}: this topology has {names}")
    return {
        "name": request["override_name"] or name,
        "env": env_name,
        "serializer": request["serializer"] or env.get("serializer", config.get("serializer")) or "json",
        "conf": resolve_options(parse_options(request["options"]), env, topology, name),
        "components": [describe(spec, env_name, wanted) for spec in topology.specs],
    }


def explain(error: BaseException, project: str) -> str:
    """One line: what went wrong, and where in the project."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if project in frame.filename]
    where = f" ({os.path.relpath(frames[-1].filename, project)}:{frames[-1].lineno})" if frames else ""
    first = (str(error).splitlines() or [""])[0]
    return f"the topology cannot be loaded{where}: {type(error).__name__}: {first}"


def main() -> None:
    """Answers one request."""
    request = json.loads(sys.argv[1])
    try:
        answer: dict[str, Any] = {"plan": load(request)}
    except Unusable as error:
        answer = {"error": str(error)}
    except BaseException as error:  # the project's own code runs here: it may raise anything
        answer = {"error": explain(error, request["project"]), "traceback": traceback.format_exc()}
    with open(request["answer"], "w", encoding="utf-8") as file:
        json.dump(answer, file)


if __name__ == "__main__":
    main()
