"""Makes requirements.lock from pyproject.toml: `python -m deploy.lock [--upgrade]`, a maintainers' command.

Promises one file with two marked sections, `run` and `test`, each package in exactly one of them, every file of it
with its hash, for Python 3.11 and 3.12 on every platform that has wheels. Needs `uv` on PATH.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = "# Every package that Clicktide uses, pinned, with hashes. Made by `python -m deploy.lock`.\n"
OPTIONS = (
    "--universal",
    "--python-version=3.11",
    "--generate-hashes",
    "--no-emit-index-url",
    "--no-header",
    "--no-annotate",
    "--only-binary=:all:",
    "--quiet",
)
PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==", re.MULTILINE)


def pins(text: str) -> dict[str, str]:
    """Each package's lines of a compiled requirements text, by its name; comments are dropped."""
    starts = [m.start() for m in PIN.finditer(text)]
    blocks = [text[a:b] for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]
    return {PIN.match(b)[1]: "".join(_lines(b)) for b in blocks}  # type: ignore[index]


def _lines(block: str) -> list[str]:
    return [line + "\n" for line in block.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def render(run: dict[str, str], both: dict[str, str]) -> str:
    """The lock file's text; raises `ValueError` when the two compilations disagree on a package."""
    if other := [name for name, block in run.items() if both.get(name, block) != block]:
        raise ValueError(f"run and test would need different versions of {', '.join(other)}")
    test = {name: block for name, block in both.items() if name not in run}
    parts = [HEADER]
    for section, blocks in (("run", run), ("test", test)):
        parts += [f"\n# --- {section}\n", *(blocks[name] for name in sorted(blocks))]
    return "".join(parts)


def compile_pins(uv: str, target: Path, *extra: str) -> dict[str, str]:
    command = [uv, "pip", "compile", *OPTIONS, *extra, "pyproject.toml", "--output-file", str(target)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return pins(target.read_text("utf-8"))


def main() -> int:
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        print("deploy.lock: needs `uv` on PATH", file=sys.stderr)
        return 1
    lock = ROOT / "requirements.lock"
    with tempfile.TemporaryDirectory() as made:
        run_file, both_file = Path(made, "run.txt"), Path(made, "both.txt")
        if lock.exists() and "--upgrade" not in sys.argv[1:]:
            run_file.write_text(lock.read_text("utf-8"), "utf-8")  # uv keeps what an output file already pins
        run = compile_pins(uv, run_file)
        if lock.exists() and "--upgrade" not in sys.argv[1:]:
            both_file.write_text(lock.read_text("utf-8"), "utf-8")
        both = compile_pins(uv, both_file, "--group", "dev", "--constraint", str(run_file))
    lock.write_text(render(run, both), "utf-8")
    print(f"requirements.lock: {len(run)} packages to run, {len(both) - len(run)} more to test")
    return 0


if __name__ == "__main__":
    sys.exit(main())
