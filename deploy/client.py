"""`python -m deploy.client [FOLDER]`: makes a wheel of the Python client alone, for application teams; it needs nothing else.

Promises: only `clicktide/__init__.py` and `clicktide/client` are in it, and nothing is left beside the wheel. It must not be installed
where workers run: an installed `clicktide` wins over the one that a topology brings with it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECT = """[build-system]
requires = ["setuptools>=61"]
build-backend = "setuptools.build_meta"

[project]
name = "clicktide-client"
description = "Sends events to a Clicktide collector in the background"
requires-python = ">=3.11"
dynamic = ["version"]

[tool.setuptools]
packages = ["clicktide", "clicktide.client"]

[tool.setuptools.package-data]
"clicktide.client" = ["py.typed"]

[tool.setuptools.dynamic]
version = { attr = "clicktide.__version__" }
"""


def build(folder: Path) -> Path:
    """The wheel, in `folder`. Raises `subprocess.CalledProcessError`."""
    with tempfile.TemporaryDirectory(prefix="clicktide-client-") as made:
        project, wheels = Path(made) / "project", Path(made) / "wheels"
        package = project / "clicktide"
        shutil.copytree(
            ROOT / "src" / "clicktide" / "client",
            package / "client",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        shutil.copy(ROOT / "src" / "clicktide" / "__init__.py", package)
        (package / "client" / "py.typed").touch()
        (project / "pyproject.toml").write_text(PROJECT, "utf-8")
        # The setuptools of this environment: nothing is fetched.
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
        subprocess.run(
            [*command, "--wheel-dir", str(wheels), str(project)], check=True, capture_output=True, text=True
        )
        found = next(wheels.glob("*.whl"))
        folder.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(found, folder))


def main() -> int:
    if len(sys.argv) > 2 or (len(sys.argv) == 2 and sys.argv[1].startswith("-")):
        print("deploy.client: expected nothing, or the folder for the wheel", file=sys.stderr)
        return 2
    try:
        print(build(Path(sys.argv[1] if len(sys.argv) == 2 else "dist")))
    except subprocess.CalledProcessError as e:
        last = (str(e.stderr).strip() or "no reason given").splitlines()[-1]
        print(f"deploy.client: pip wheel failed: {last}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
