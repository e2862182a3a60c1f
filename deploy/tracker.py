"""`python -m deploy.tracker`: makes services/assets/tide.min.js of tide.js, with a pinned terser by npx.

Only for whoever changes tide.js: what is served is committed. The first line names the source's digest, by which a test knows
that the file is up to date.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ASSETS = Path(__file__).resolve().parent.parent / "services" / "assets"
SOURCE, SERVED = ASSETS / "tide.js", ASSETS / "tide.min.js"
TERSER = "terser@5.44.0"
OPTIONS = ("--compress", "ecma=2020,passes=3,unsafe_arrows", "--mangle", "--ecma", "2020")


def banner(source: bytes) -> str:
    """The first line of what is made of `source`."""
    return f"/*tide.js {hashlib.sha256(source).hexdigest()[:8]}*/"


def main() -> int:
    if shutil.which("npx") is None:
        print("deploy.tracker: npx is not there: apt-get install npm", file=sys.stderr)
        return 1
    done = subprocess.run(
        ["npx", "--yes", TERSER, str(SOURCE), *OPTIONS], capture_output=True, text=True, check=False
    )
    if done.returncode != 0 or not done.stdout.strip():
        reason = (done.stderr.strip() or "no output").splitlines()[-1]
        print(f"deploy.tracker: {TERSER} failed: {reason}", file=sys.stderr)
        return 1
    SERVED.write_text(f"{banner(SOURCE.read_bytes())}\n{done.stdout.strip()}\n", "utf-8")
    print(f"{SERVED.name}: {SERVED.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
