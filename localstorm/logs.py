"""One log file a task: what its `log` and `error` commands and its stderr say, with level and time.

A file past 10 MB is kept once, as `.1`, so logs are bounded. Lines are written through at once: a log is most
wanted after a crash.
"""

from datetime import datetime
from pathlib import Path
from typing import TextIO

from localstorm.errors import LocalStormError

LEVELS = ("TRACE", "DEBUG", "INFO", "WARNING", "ERROR")
"""Storm's levels by their number on the wire."""
WARNING, ERROR = 3, 4
_MOST = 10_000_000


class LogFiles:
    """The log folder of a run. Raises LocalStormError when it cannot be written."""

    def __init__(self, folder: Path, topology: str) -> None:
        self._folder = folder
        self._topology = topology
        self._files: dict[str, TextIO] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._open("localstorm")
        except OSError as error:
            raise LocalStormError(
                f"log folder {folder} cannot be written: {error.strerror}; name another with --log-dir"
            ) from None

    def path(self, name: str) -> Path:
        """The log file of a task (`component-taskid`) or of `localstorm` itself."""
        return self._folder / f"{self._topology}-{name.replace('/', '_')}.log"

    def write(self, name: str, level: str, text: str) -> None:
        """Appends an entry. A full disk must not stop the topology, so errors are swallowed."""
        stamp = datetime.now().astimezone().isoformat(sep=" ", timespec="milliseconds")
        try:
            file = self._files.get(name) or self._open(name)
            file.write(f"{stamp} {level:<7} {text}\n")
            file.flush()
            if file.tell() > _MOST:
                self._turn_over(name)
        except OSError:
            self._files.pop(name, None)

    def close(self) -> None:
        """Closes all files."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _open(self, name: str) -> TextIO:
        file = self.path(name).open("a", encoding="utf-8", errors="replace")
        self._files[name] = file
        return file

    def _turn_over(self, name: str) -> None:
        self._files.pop(name).close()
        path = self.path(name)
        path.replace(path.with_suffix(".log.1"))
