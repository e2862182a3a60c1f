"""Layers: each knows only the one below. What a worker gets (src/) imports nothing that stays at home."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SRC = ROOT / "src"
# What a worker has installed (pyproject.toml); the rest of it is for services and tests.
THIRD_PARTY = {
    "confluent_kafka",
    "hiredis",
    "kafka",
    "msgspec",
    "orjson",
    "pymysql",
    "redis",
    "sqlalchemy",
    "alembic",
    "zstandard",
}
STORM = {"streamparse", "pystorm"}
# May import, beside the standard library.
ALLOWED = {
    "clicktide": {"clicktide", *THIRD_PARTY},
    "multilang": {"multilang", "clicktide", "orjson", *STORM},
    "bolts": {"bolts", "multilang", "clicktide", *STORM},
    "spouts": {"spouts", "multilang", "clicktide", *STORM},
}
# Decide by what they are handed; time and chance are passed in, so that a replay decides alike and tests need not wait.
PURE = [
    "aggregate",
    "breaker",
    "claims",
    "divert",
    "event",
    "flight",
    "orders",
    "packing",
    "parse",
    "persist",
    "redrive",
    "retry/envelope",
    "retry/policy",
    "row",
    "shards",
    "slices",
    "source",
]


def files(folder):
    return sorted(p for p in folder.rglob("*.py") if "__pycache__" not in p.parts)


def imports(path: Path, tree: ast.AST | None = None) -> set[str]:
    """Full names of the modules that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(tree or ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            assert node.module is not None
            found.add(node.module)
    return found


def tops(path):
    return {name.split(".")[0] for name in imports(path)} - sys.stdlib_module_names


def test_every_folder_of_src_has_its_rule():
    assert {p.name for p in SRC.iterdir() if p.is_dir() and p.name != "__pycache__"} == ALLOWED.keys()
    assert not (SRC / "__init__.py").exists()


@pytest.mark.parametrize("layer", ALLOWED)
def test_a_layer_imports_only_what_is_below(layer):
    bad = {
        str(path.relative_to(ROOT)): sorted(extra)
        for path in files(SRC / layer)
        if (extra := tops(path) - ALLOWED[layer])
    }
    assert bad == {}


def test_the_core_knows_nothing_of_the_wire_shells():
    """`clicktide` by name, so that widening the table above is no accident."""
    forbidden = {
        *STORM,
        "bolts",
        "spouts",
        "multilang",
        "services",
        "localstorm",
        "bench",
        "cli",
        "deploy",
        "retry",
    }
    assert {t for path in files(SRC / "clicktide") for t in tops(path)} & forbidden == set()


def test_nothing_is_imported_through_src():
    folders = [p for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith((".", "_"))]
    bad = [
        p
        for folder in folders
        for p in files(folder)
        if any(n == "src" or n.startswith("src.") for n in imports(p))
    ]
    assert bad == []


@pytest.mark.parametrize("name", PURE)
def test_time_and_chance_are_passed_in(name):
    assert imports(SRC / "clicktide" / f"{name}.py") & {"time", "random", "secrets", "uuid", "os"} == set()


def test_nothing_prints_when_it_is_imported():
    """A stray line on a worker's stdout ends the protocol."""
    for path in files(SRC):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                called = node.value.func
                assert not (isinstance(called, ast.Name) and called.id == "print"), path


def test_this_test_sees_imports_inside_functions():
    source = "def f():\n    import streamparse.x\n    from services import y\n"
    assert imports(Path(), ast.parse(source)) == {"streamparse.x", "services"}
