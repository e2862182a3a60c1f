"""Makes `.venv` from requirements.lock when it has to, then becomes `python -m cli.main` inside it.

Standard library only, Python 3.11 or 3.12. Promises: nothing is done and no network is needed when `.venv` is as the
lock file says; an interrupted set-up, a moved checkout and a vanished Python are noticed and made good; of several
calls at once one does the work and the others wait for it; every failure is one line on standard error.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOCK = ROOT / "requirements.lock"
MARKER = VENV / "clicktide.json"
SECTION = re.compile(r"^# --- (\w+)\n", re.MULTILINE)
PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==", re.MULTILINE)
PIP = (
    "install",
    "--require-hashes",
    "--no-deps",
    "--only-binary=:all:",
    "--disable-pip-version-check",
    "--no-input",
    "--progress-bar=off",
    "--retries=2",
)


class SetupError(Exception):
    """The set-up cannot go on; its text is one line for a person."""


def needed(args: list[str]) -> tuple[str, ...]:
    """The sections of the lock file that a command line needs."""
    return ("run", "test") if args[:1] == ["test"] else ("run",)


def sections(text: str) -> dict[str, str]:
    """The lock file's sections by name, in order."""
    parts = SECTION.split(text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def digest(section: str) -> str:
    return hashlib.sha256(section.encode()).hexdigest()


def marker() -> dict[str, object]:
    """What the last finished set-up said of itself; {} when there is none or it does not belong to this place."""
    try:
        found = json.loads(MARKER.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    fits = isinstance(found, dict) and found.get("root") == str(ROOT) and os.access(PYTHON, os.X_OK)
    return found if fits else {}


def installed() -> dict[str, str]:
    """Digest by section of what `.venv` holds; {} when it has to be made anew."""
    held = marker().get("sections")
    return dict(held) if isinstance(held, dict) else {}


def missing(wanted: tuple[str, ...]) -> dict[str, str]:
    """The sections that `.venv` lacks, by name."""
    try:
        known = sections(LOCK.read_text("utf-8"))
    except OSError as e:
        raise SetupError(f"cannot read {LOCK.name}: {e.strerror}") from e
    held = installed()
    return {name: known[name] for name in wanted if held.get(name) != digest(known[name])}


class Progress:
    """One line that says how far the set-up is: rewritten on a terminal, else printed every few seconds."""

    def __init__(self) -> None:
        self.tty = sys.stderr.isatty()
        self.last = 0.0
        self.shown = ""
        self.guard = threading.Lock()

    def say(self, text: str) -> None:
        """A line that stays."""
        with self.guard:
            sys.stderr.write(("\r\x1b[K" if self.tty else "") + f"tide: {text}\n")
            sys.stderr.flush()

    def show(self, text: str) -> None:
        """A state that the next one replaces."""
        now = time.monotonic()
        with self.guard:
            if text == self.shown or (not self.tty and now - self.last < 3):
                return
            self.last, self.shown = now, text
            width = shutil.get_terminal_size().columns - 1
            line = f"tide: {text}"
            sys.stderr.write("\r\x1b[K" + line[:width] if self.tty else line + "\n")
            sys.stderr.flush()

    def clear(self) -> None:
        if self.tty:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


@contextlib.contextmanager
def alone(progress: Progress) -> Iterator[None]:
    """Holds the lock that keeps two set-ups of one checkout apart; the kernel drops it when a holder dies."""
    with LOCK.open("rb") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            progress.say("another set-up of this checkout is running; waiting for it")
            fcntl.flock(held, fcntl.LOCK_EX)
        yield


def base_python() -> str:
    """An interpreter that outlives `.venv`, with what `python -m venv` needs; installs that on Debian as root."""
    here = os.path.realpath(sys.executable)
    names = ("python3.12", "python3.11", "python3")
    others = [found for name in names if (found := shutil.which(name)) and VENV not in Path(found).parents]
    for python in (here, *others):
        if _has_venv(python):
            return python
    package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
    if os.geteuid() == 0 and shutil.which("apt-get"):
        why = _apt_install(package)
        if _has_venv(here):
            return here
        raise SetupError(
            f"this Python cannot make virtual environments, and apt-get install {package} failed: {why}"
        )
    raise SetupError(f"this Python cannot make virtual environments; on Debian: apt-get install {package}")


def _has_venv(python: str) -> bool:
    code = "import sys, venv, ensurepip; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))"
    return subprocess.run([python, "-I", "-c", code], capture_output=True, check=False).returncode == 0


def _apt_install(package: str) -> str:
    """ "" when it is installed, else the reason."""
    Progress().say(f"installing Debian's {package}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = [
        "apt-get",
        "install",
        "-y",
        "--no-install-recommends",
        "-o",
        "DPkg::Lock::Timeout=120",
        package,
    ]
    said = ""
    for command in (install, ["apt-get", "update"], install):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if command is install and done.returncode == 0:
            return ""
        said = " ".join(done.stderr.split()) or said
    return said


def make_venv(progress: Progress) -> None:
    """An empty `.venv` with pip in it."""
    python = base_python()
    progress.show("set-up: making .venv")
    try:
        if VENV.is_symlink():
            VENV.unlink()
        if VENV.exists():
            shutil.rmtree(VENV)
    except OSError as e:
        raise SetupError(f"cannot remove the old .venv: {e.strerror}: {e.filename}") from e
    done = subprocess.run(
        [python, "-I", "-m", "venv", str(VENV)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        raise SetupError(f"cannot make .venv in {ROOT}: {said[-1]}")


def install(name: str, section: str, progress: Progress) -> None:
    """Installs one section of the lock file with the venv's own pip, showing how far it is."""
    wanted = VENV / f"{name}.txt"
    wanted.write_text(section, "utf-8")
    names = PIN.findall(section)
    with (VENV / "setup.log").open("a", encoding="utf-8") as log:
        command = [str(PYTHON), "-I", "-m", "pip", *PIP, "-r", str(wanted)]
        pip = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        try:
            said = _follow(pip, log, name, len(names), progress)
            code = pip.wait()
        finally:
            if pip.poll() is None:
                pip.terminate()
                pip.wait()
    if code != 0:
        raise SetupError(
            f"pip could not install the {name} packages: {_reason(said)} (all of it: .venv/setup.log)"
        )


def _follow(pip: subprocess.Popen[str], log: object, name: str, total: int, progress: Progress) -> list[str]:
    said: list[str] = []
    count = 0
    over = threading.Event()
    for line in pip.stdout or ():
        log.write(line)  # type: ignore[attr-defined]
        text = line.strip()
        said.append(text)
        first, _, rest = text.partition(" ")
        if first in ("Collecting", "Requirement", "Ignoring"):
            count += 1
            package = rest.removeprefix("already satisfied: ").partition("==")[0].partition(":")[0]
            progress.show(f"set-up ({name}): fetching {min(count, total)} of {total}: {package}")
        elif first in ("Downloading", "WARNING:"):
            progress.show(f"set-up ({name}): fetching {min(count, total)} of {total}: {text}")
        elif text.startswith("Installing collected"):
            packages = text.count(",") + 1
            threading.Thread(
                target=_watch_installing, args=(name, packages, progress, over), daemon=True
            ).start()
    over.set()
    return said


def _watch_installing(name: str, total: int, progress: Progress, over: threading.Event) -> None:
    """pip installs without a word; the folders it has finished say how far it is."""
    site = VENV / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    before = len(list(site.glob("*.dist-info")))
    while not over.wait(0.3):
        done = len(list(site.glob("*.dist-info"))) - before
        progress.show(f"set-up ({name}): installing {min(max(done, 0), total)} of {total}")


def _reason(said: list[str]) -> str:
    errors = [line.removeprefix("ERROR: ") for line in said if line.startswith("ERROR:")]
    if any("Retrying" in line for line in said):
        return "the package index does not answer; is there a network, is pip set up for it?"
    return errors[0] if errors else (said[-1] if said else "no reason given")


def set_up(wanted: tuple[str, ...]) -> None:
    """Makes `.venv` hold the wanted sections; returns at once when it does."""
    if not missing(wanted):
        return
    progress = Progress()
    with alone(progress):
        todo = missing(wanted)
        if not todo:
            return
        started = time.monotonic()
        progress.say("setting up .venv from requirements.lock; this is done once")
        held = installed()
        if not held:
            make_venv(progress)
        for name, section in todo.items():
            # Without the marker a set-up that is cut short here starts from nothing the next time.
            MARKER.unlink(missing_ok=True)
            install(name, section, progress)
            held[name] = digest(section)
            _write_marker(held)
        progress.say(f"set-up done in {time.monotonic() - started:.0f} s")


def _write_marker(held: dict[str, str]) -> None:
    draft = MARKER.with_suffix(".draft")
    draft.write_text(json.dumps({"root": str(ROOT), "sections": held}), "utf-8")
    draft.replace(MARKER)


def environment() -> dict[str, str]:
    """The environment of the commands: imports come from this checkout, and from nowhere the caller's shell says."""
    given = {
        k: v for k, v in os.environ.items() if k not in ("PYTHONHOME", "PYTHONPATH", "__PYVENV_LAUNCHER__")
    }
    return {**given, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"}


def main(args: list[str]) -> int:  # noqa: RET503 - execve does not return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        set_up(needed(args))
    except SetupError as e:
        sys.stderr.write(f"tide: {e}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\ntide: set-up interrupted; the next call takes it up again\n")
        return 130
    except OSError as e:
        sys.stderr.write(f"tide: set-up failed: {e.strerror or e}: {e.filename or VENV}\n")
        return 1
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # -P: a folder named `cli` where the user stands must not win over ours.
    os.execve(PYTHON, [str(PYTHON), "-P", "-m", "cli.main", *args], environment())  # noqa: S606 - a fixed program


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
