"""Apache Kafka: one node, KRaft, broker and controller in one JVM.

Topics are never made by accident, timestamps are the producer's, and heap is capped.
"""

from __future__ import annotations

import base64
import subprocess
import uuid
from pathlib import Path
from typing import ClassVar

from deploy.stack.errors import StackError
from deploy.stack.jars import jar_folder
from deploy.stack.java import java_argv, rolling_log4j2
from deploy.stack.servers.base import Server, accepts, write_if_changed
from deploy.stack.settings import LOOPBACK, StackSettings

FORMAT_SECONDS = 60


class Kafka(Server):
    """The broker; answers when a metadata request does."""

    group: ClassVar[str] = "kafka"
    jars: ClassVar[str | None] = "kafka"

    def __init__(self, settings: StackSettings) -> None:
        super().__init__("kafka", settings.kafka_port, settings)

    def ports(self) -> dict[str, int]:
        return {
            "kafka_port": self.port,
            "kafka_controller_port": self.settings.kafka_controller_port,
        }

    @property
    def configuration(self) -> Path:
        """The rendered server.properties."""
        return self.folder / "server.properties"

    def prepare(self) -> None:
        """Render, and format the data folder once: a second format would be another cluster."""
        write_if_changed(self.configuration, server_properties(self.settings, self.folder / "data"))
        write_if_changed(
            self.folder / "log4j2.xml",
            rolling_log4j2(self.log, quiet=("org.apache.kafka",)),
        )
        if not (self.folder / "data" / "meta.properties").exists():
            self._format()

    def argv(self) -> list[str]:
        return self._java("kafka.Kafka", [str(self.configuration)], self.settings.kafka_heap_mb)

    def answers(self) -> bool:
        if not accepts(self.port):
            return False
        from kafka import (
            KafkaAdminClient,
        )  # late: the import takes a while, and `stack status` may not need it
        from kafka.errors import KafkaError

        try:
            client = KafkaAdminClient(
                bootstrap_servers=self.address,
                request_timeout_ms=2000,
                bootstrap_timeout_ms=2000,
                reconnect_backoff_max_ms=200,
            )
        except (KafkaError, OSError, ValueError):
            return False
        try:
            return bool(client.describe_cluster()["brokers"])
        except (KafkaError, OSError):
            return False
        finally:
            client.close()

    def _format(self) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        if cluster.startswith("-"):  # the tool would take it for an option
            cluster = "A" + cluster[1:]
        argv = self._java(
            "kafka.tools.StorageTool",
            ["format", "-t", cluster, "-c", str(self.configuration)],
            heap_mb=128,
        )
        done = subprocess.run(argv, capture_output=True, text=True, timeout=FORMAT_SECONDS, check=False)
        if done.returncode != 0:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise StackError(
                f"Kafka's data folder {self.folder / 'data'} could not be formatted: {' '.join(last)}"
            )

    def _java(self, main: str, arguments: list[str], heap_mb: int) -> list[str]:
        return java_argv(
            main,
            heap_mb=heap_mb,
            class_path=[f"{jar_folder(self.settings, 'kafka')}/*"],
            properties={
                "log4j2.configurationFile": f"file:{self.folder / 'log4j2.xml'}",
                "kafka.logs.dir": str(self.settings.folder("logs")),
            },
            arguments=arguments,
        )


def server_properties(settings: StackSettings, data: Path) -> str:
    """Kafka's server.properties for one durable node on the loopback address."""
    values = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{LOOPBACK}:{settings.kafka_controller_port}",
        "listeners": f"CLIENT://{LOOPBACK}:{settings.kafka_port},CONTROLLER://{LOOPBACK}:{settings.kafka_controller_port}",
        "advertised.listeners": f"CLIENT://{LOOPBACK}:{settings.kafka_port}",
        "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "CLIENT",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": data,
        "auto.create.topics.enable": "false",
        "num.partitions": settings.kafka_partitions,
        "default.replication.factor": 1,
        "min.insync.replicas": 1,
        "log.message.timestamp.type": "CreateTime",
        "log.retention.hours": 168,
        "log.segment.bytes": 134217728,
        "offsets.retention.minutes": 20160,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 8,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 8,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        # A lone member need not wait for others to join its group.
        "group.initial.rebalance.delay.ms": 0,
        "num.network.threads": 2,
        "num.io.threads": 4,
        "num.recovery.threads.per.data.dir": 2,
    }
    return "".join(f"{key}={value}\n" for key, value in values.items())
