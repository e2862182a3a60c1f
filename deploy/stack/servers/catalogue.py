"""Every server of the stack, in starting order."""

from __future__ import annotations

from deploy.stack.servers.base import Server
from deploy.stack.servers.kafka import Kafka
from deploy.stack.settings import StackSettings


def every_server(settings: StackSettings) -> list[Server]:
    """All servers; each comes after those that it needs."""
    return [Kafka(settings)]
