"""The system under measurement: an embedded one of its own, or the real stack as it runs.

The embedded one lives in a temporary folder and is gone afterwards. On the stack the topology must have been submitted;
what is written there stays (ids are unique to the run). Services that were started by hand are not among its processes.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import machine
from clicktide import keys, topics
from clicktide.errors import ClicktideError
from clicktide.log import open_log
from clicktide.log.port import LogAdmin, LogProducer, TopicPartition
from clicktide.redisstore.client import connect
from clicktide.settings import Settings


class System:
    """Settings, and how far its topology `events` is."""

    def __init__(self, settings: Settings, roots: Callable[[], Iterable[int]], url: str) -> None:
        self.settings, self.url, self._roots = settings, url, roots
        log = open_log(settings)
        self.admin: LogAdmin = log.admin()
        self.producer: LogProducer = log.producer()
        self.redis = connect(settings)
        self.topic = settings.text("topics.prefix") + topics.EVENTS
        info = self.admin.topics().get(self.topic)
        if info is None:
            raise ClicktideError(f"topic {self.topic} does not exist; start the topology first")
        self.partitions = [TopicPartition(self.topic, p) for p in range(info.partitions)]

    def end(self) -> int:
        """Sum of the partitions' end offsets."""
        return sum(end for _, end in self.admin.bounds(self.partitions).values())

    def done(self) -> int:
        """Sum of the offsets up to which all is acked, as the spouts publish it twice a second."""
        fields = self.redis.hgetall(keys.spouts(self.settings.text("redis.namespace"), self.topic))
        return sum(int(json.loads(position)["done"]) for position in fields.values())

    def processes(self) -> list[machine.Process]:
        """Its own: a machine may run other servers of the same names."""
        return machine.below(self._roots(), machine.processes())


def _stack_roots() -> list[int]:
    """The stack's servers on this machine, and its Storm workers, which outlive a supervisor."""
    from deploy.stack.settings import settings_from
    from deploy.stack.stack import Stack

    stack = Stack(settings_from(os.environ))
    records = [stack.record(item) for item in stack.servers]
    workers = [record for item in stack.servers for record in item.orphans()]
    return [record.pid for record in [*records, *workers] if record is not None]


@contextmanager
def system(env: str) -> Iterator[System]:
    """The system of an environment."""
    from cli.context import settings_for

    if env != "embedded":
        yield System(settings_for(env), _stack_roots, "http://127.0.0.1:8080")
        return
    from deploy.embedded.places import Places
    from deploy.embedded.supervisor import running_services

    with tempfile.TemporaryDirectory(prefix="tide-bench-") as folder:
        places = Places(Path(folder))
        with running_services(
            places, lambda: settings_for("embedded", places.root), 0, lambda _: None
        ) as services:
            yield System(services.settings, lambda: [os.getpid()], f"http://127.0.0.1:{services.port}")
