"""MariaDB from Debian: two servers, each with its own data, durable at every commit.

Both hold a database ``tide`` and a user ``tide`` that may also make databases named ``tide...``.
"""

from __future__ import annotations

import getpass
import shutil
import subprocess
from pathlib import Path
from typing import ClassVar

from deploy.stack.debian import program
from deploy.stack.errors import StackError
from deploy.stack.servers.base import Server, accepts, write_if_changed
from deploy.stack.settings import LOOPBACK, StackSettings

USER = PASSWORD = DATABASE = "tide"  # noqa: S105 - no secret: loopback only, and documented
INSTALL_SECONDS = 120

# Run at every start: the server keeps the user and the database that clients are told of. One statement a line.
INIT_SQL = f"""\
CREATE DATABASE IF NOT EXISTS `{DATABASE}` CHARACTER SET utf8mb4;
CREATE USER IF NOT EXISTS '{USER}'@'{LOOPBACK}' IDENTIFIED BY '{PASSWORD}';
GRANT ALL ON `{DATABASE}%`.* TO '{USER}'@'{LOOPBACK}';
GRANT PROCESS ON *.* TO '{USER}'@'{LOOPBACK}';
"""


class MariaDB(Server):
    """One SQL server; answers when SELECT 1 as the user ``tide`` does."""

    group: ClassVar[str] = "mariadb"

    def __init__(self, number: int, port: int, settings: StackSettings) -> None:
        super().__init__(f"mariadb-{number}", port, settings)

    @property
    def configuration(self) -> Path:
        """The rendered my.cnf."""
        return self.folder / "my.cnf"

    def prepare(self) -> None:
        """Render, and make the system tables once; a half-made folder is made anew."""
        (self.folder / "tmp").mkdir(parents=True, exist_ok=True)
        write_if_changed(self.folder / "init.sql", INIT_SQL)
        write_if_changed(self.configuration, my_cnf(self.settings, self.port, self.folder, self.log))
        if not (self.folder / "made").exists():
            self._make_system_tables()
            (self.folder / "made").touch()

    def argv(self) -> list[str]:
        return [
            program("mariadbd") or "mariadbd",
            f"--defaults-file={self.configuration}",
            f"--user={_account()}",
        ]

    def answers(self) -> bool:
        if not accepts(self.port):
            return False
        import pymysql

        try:
            connection = pymysql.connect(
                host=LOOPBACK,
                port=self.port,
                user=USER,
                password=PASSWORD,
                database=DATABASE,
                connect_timeout=2,
                read_timeout=2,
            )
            with connection, connection.cursor() as cursor:
                return bool(cursor.execute("SELECT 1") == 1)
        except (pymysql.MySQLError, OSError):
            return False

    def _make_system_tables(self) -> None:
        shutil.rmtree(self.folder / "data", ignore_errors=True)
        account = _account()
        done = subprocess.run(
            [
                program("mariadb-install-db") or "mariadb-install-db",
                f"--defaults-file={self.configuration}",
                f"--user={account}",
                # Only the account that runs the server is its root, and only through the socket.
                "--auth-root-authentication-method=socket",
                f"--auth-root-socket-user={account}",
                "--skip-test-db",
                "--skip-name-resolve",
            ],
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise StackError(f"{self.name}: its data folder could not be made: {' '.join(last)}")


def _account() -> str:
    """The system account that runs the server: ours; the server asks for it by name when that is root."""
    return getpass.getuser()


def my_cnf(settings: StackSettings, port: int, folder: Path, log: Path) -> str:
    """MariaDB's option file."""
    values = {
        "datadir": folder / "data",
        # Its own: a server that starts removes what it finds of temporary tables there, another one's as well.
        "tmpdir": folder / "tmp",
        "port": port,
        "bind-address": LOOPBACK,
        # Relative to the data folder: a socket's whole path must stay under 108 bytes.
        "socket": "mariadb.sock",
        "pid-file": "mariadb.pid",
        "log-error": log,
        "init-file": folder / "init.sql",
        "skip-name-resolve": "ON",
        "skip-log-bin": None,
        "innodb-flush-log-at-trx-commit": 1,
        "innodb-buffer-pool-size": f"{settings.mariadb_buffer_mb}M",
        # A page that changes often goes to its place once in so much log; with 128M, and half the buffer, a write cost 14 to 29 % more.
        "innodb-log-file-size": "512M",
        "character-set-server": "utf8mb4",
        "default-time-zone": "+00:00",
        "max-connections": 200,
        "max-allowed-packet": "64M",
        "performance-schema": "OFF",
    }
    lines = [key if value is None else f"{key} = {value}" for key, value in values.items()]
    return "[mariadbd]\n" + "\n".join(lines) + "\n"


def dsn(server: MariaDB) -> str:
    """SQLAlchemy's URL of the server's database."""
    return f"mysql+pymysql://{USER}:{PASSWORD}@{server.address}/{DATABASE}"
