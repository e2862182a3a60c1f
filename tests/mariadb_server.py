"""A MariaDB server of one's own for tests: own data folder, own port on loopback, ended by its pid.

For tests that stop, pause or kill a server, and for those that want one where no stack runs. Needs the Debian
package mariadb-server. Plain module: no pytest here.
"""

from __future__ import annotations

import ctypes
import getpass
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pymysql
from ports import free_ports

_START_S = 60.0
_PR_SET_PDEATHSIG = 1


def have_mariadb() -> bool:
    """Whether the binaries are installed."""
    return bool(shutil.which("mariadbd", path=_path()) and shutil.which("mariadb-install-db", path=_path()))


def _path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin"


class MariaDbServer:
    """One server; `dsn(name)` makes a database and answers its SQLAlchemy URL."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        (self.port,) = free_ports(1)
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def install(self) -> None:
        """Make the data folder."""
        subprocess.run(
            [
                _binary("mariadb-install-db"),
                "--no-defaults",
                f"--datadir={self.folder / 'data'}",
                f"--tmpdir={self.folder}",  # another server that starts removes what it finds in a shared one
                f"--user={getpass.getuser()}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ],
            check=True,
            capture_output=True,
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.folder / "mariadbd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    _binary("mariadbd"),
                    "--no-defaults",
                    f"--datadir={self.folder / 'data'}",
                    f"--tmpdir={self.folder}",
                    f"--socket={self.folder / 's'}",
                    f"--user={getpass.getuser()}",
                    f"--port={self.port}",
                    "--bind-address=127.0.0.1",
                    "--innodb-flush-log-at-trx-commit=1",
                    "--innodb-buffer-pool-size=64M",
                    "--performance-schema=OFF",
                    *self._options,
                ],
                stdout=log,
                stderr=log,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - one call, that takes no lock
            )
        deadline = time.monotonic() + _START_S
        while True:
            try:
                self.admin().close()
            except pymysql.err.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    text = (self.folder / "mariadbd.log").read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"mariadbd did not start:\n{text}") from None
                time.sleep(0.05)
            else:
                return

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def admin(self, database: str | None = None) -> pymysql.connections.Connection:
        """A connection as root, autocommit."""
        return pymysql.connect(
            host="127.0.0.1",
            port=self.port,
            user="root",
            database=database,
            autocommit=True,
            connect_timeout=5,
        )

    def run(self, sql: str) -> None:
        """One statement as root."""
        with self.admin() as connection, connection.cursor() as cursor:
            cursor.execute(sql)

    def dsn(self, database: str) -> str:
        """Make the database, if it is not there, and answer its DSN."""
        self.run(f"CREATE DATABASE IF NOT EXISTS `{database}`")
        return f"mysql+pymysql://root@127.0.0.1:{self.port}/{database}"

    def pause(self) -> None:
        """It neither answers nor closes its connections, until `resume`."""
        os.kill(self.pid, signal.SIGSTOP)
        # Its threads stop one by one; on a busy machine one may answer a question meanwhile.
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it, from whatever state."""
        if self._process is not None and self._process.poll() is None:
            self.resume()
            self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)


@contextmanager
def mariadb_server(folder: Path, *options: str) -> Iterator[MariaDbServer]:
    """A running server under `folder` (its path short enough for a socket), ended at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    server = MariaDbServer(folder, *options)
    server.install()
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _end_with_parent() -> None:
    # A test run that is killed, as pytest-timeout does, must leave no server behind.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _binary(name: str) -> str:
    found = shutil.which(name, path=_path())
    if found is None:
        raise RuntimeError(f"{name} is not installed: apt-get install mariadb-server")
    return found
