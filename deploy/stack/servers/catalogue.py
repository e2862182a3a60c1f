"""Every server of the stack, in starting order."""

from __future__ import annotations

from deploy.stack.servers.base import Server
from deploy.stack.servers.kafka import Kafka
from deploy.stack.servers.mariadb import MariaDB
from deploy.stack.servers.redis import Redis
from deploy.stack.servers.storm import Nimbus, Supervisor, ZooKeeper
from deploy.stack.settings import StackSettings


def every_server(settings: StackSettings) -> list[Server]:
    """All servers; each comes after those that it needs."""
    return [
        Kafka(settings),
        Redis(settings),
        MariaDB(1, settings.mariadb_1_port, settings),
        MariaDB(2, settings.mariadb_2_port, settings),
        ZooKeeper(settings),
        Nimbus(settings),
        Supervisor(settings),
    ]
