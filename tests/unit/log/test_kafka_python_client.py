"""A client of kafka-python's that cannot connect leaves nothing behind."""

from __future__ import annotations

import gc
import logging
import threading
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError
from ports import free_ports

from clicktide.log.kafka import Cluster
from clicktide.log.kafka_python.client import common, opened
from clicktide.settings import Settings


@pytest.mark.parametrize("kind", [KafkaAdminClient, KafkaConsumer, KafkaProducer])
def test_one_that_cannot_connect_ends_its_thread_and_its_sockets(
    kind: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "kafka")  # what is logged keeps its exception, and that its sockets
    (port,) = free_ports(1)
    conf = common(Cluster.of(Settings({"kafka.bootstrap": f"127.0.0.1:{port}"})), 0.1)
    gc.collect()
    threads, files = set(threading.enumerate()), len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with pytest.raises(KafkaError):
            opened(kind, conf)
    gc.collect()  # the library leaves a socket that could not be connected
    assert set(threading.enumerate()) <= threads
    assert len(list(Path("/proc/self/fd").iterdir())) <= files
