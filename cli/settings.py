"""`./tide settings`: every setting, from the one registry; docs/settings.md is what it prints.

Promises: nothing is read but the registry, so that the page says what the code does.
"""

from __future__ import annotations

from clicktide.settings import ENV_PREFIX, PREFIX, REGISTRY, Setting, Value

_TYPES = {str: "text", int: "whole number", float: "number", bool: "true or false"}

_HEAD = """# Settings

Made by `./tide settings` from the registry (`src/clicktide/settings.py`); a test holds this page to it.

- Topologies read `config.json`, `envs.<env>.options`, as `tide.<name>`; `-o tide.<name>=<value>` on the command line wins over it.
- Services and commands read the same options, and the environment variable in the table wins over them.
- An unknown name or a value that is not what was expected is refused at start, by name.
"""


def main() -> None:
    """Print every setting as Markdown: name, variable, type, default, unit, what it does."""
    print(page(), end="")


def page() -> str:
    """The whole page."""
    return _HEAD + "".join(_section(group, its) for group, its in _groups().items())


def _groups() -> dict[str, list[Setting]]:
    groups: dict[str, list[Setting]] = {}
    for setting in REGISTRY.values():
        groups.setdefault(setting.name.split(".", maxsplit=1)[0], []).append(setting)
    return groups


def _section(group: str, its: list[Setting]) -> str:
    lines = [
        "",
        f"## {group}",
        "",
        "| name | type | default | unit | what it does |",
        "|---|---|---|---|---|",
    ]
    for s in its:
        name = f"`{PREFIX}{s.name}`<br>`{variable(s.name)}`"
        lines.append(f"| {name} | {_TYPES[s.type]} | {_shown(s.default)} | {s.unit} | {s.help} |")
    return "\n".join(lines) + "\n"


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return ENV_PREFIX + name.upper().replace(".", "_")


def _shown(default: Value) -> str:
    text = f"{default:g}" if isinstance(default, float) else str(default)
    if isinstance(default, bool):
        text = text.lower()
    return f"`{text}`" if text else "(empty)"


if __name__ == "__main__":
    main()
