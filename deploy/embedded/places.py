"""Where the embedded services keep what they have: every path and address under a data directory in one place.

Pure, but for `private_socket` and `remove_private_socket`: a short private folder where a data directory's path is too long
for a unix socket.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from clicktide.errors import SettingError

SHARD_FILES = 2
# Linux allows 107 bytes in a socket's address, macOS 103.
SOCKET_BYTES = 100


@dataclass(frozen=True, slots=True)
class Places:
    """The paths of one data directory (absolute)."""

    root: Path

    @property
    def log(self) -> Path:
        return self.root / "log.sqlite"

    @property
    def shards(self) -> list[Path]:
        return [self.root / f"shard-{i}.sqlite" for i in range(SHARD_FILES)]

    @property
    def redis(self) -> Path:
        return self.root / "redis"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def truths(self) -> Path:
        return self.root / "truth"

    @property
    def run_file(self) -> Path:
        return self.root / "run.json"

    @property
    def lock_file(self) -> Path:
        return self.root / "demo.lock"

    def stats(self, topology: str) -> Path:
        return self.root / f"{topology}.stats.json"

    @property
    def socket(self) -> Path:
        """Redis's unix socket: in the data directory, or in a private short folder when that path is too long."""
        near = self.redis / "redis.sock"
        return near if len(os.fsencode(near)) < SOCKET_BYTES else self.far_socket

    @property
    def far_socket(self) -> Path:
        name = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"clicktide-{os.getuid()}-{name}" / "redis.sock"

    def options(self) -> dict[str, str]:
        """The settings that say where the stores are, as Storm options."""
        return {
            "tide.log.adapter": "embedded",
            "tide.log.path": str(self.log),
            "tide.redis.url": f"unix://{quote(str(self.socket))}",
            "tide.sql.dsns": " ".join(sqlite_url(path) for path in self.shards),
        }


def sqlite_url(path: Path) -> str:
    """The DSN of a shard file; percent-encoded, since blanks separate DSNs."""
    return f"sqlite:///{quote(str(path))}"


def remove_private_socket(socket: Path) -> None:
    """Removes the folder of a far socket, when nothing else is in it."""
    with contextlib.suppress(OSError):
        socket.unlink(missing_ok=True)
        socket.parent.rmdir()


def private_socket(socket: Path) -> None:
    """Makes the folder of a far socket, readable by this user alone; refuses one that is somebody else's."""
    socket.parent.mkdir(mode=0o700, exist_ok=True)
    found = socket.parent.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise SettingError(f"{socket.parent} is not a private folder of this user; remove it")
