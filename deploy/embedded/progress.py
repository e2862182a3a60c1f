"""How far the pipeline is: what was accepted, what is done, what waits. From the log's bounds and the spouts' positions.

The spouts publish what they have seen done in Redis; what they have committed, some seconds later, is in the log.
The greater of the two counts as done.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from clicktide import keys, topics
from clicktide.errors import ClicktideError
from clicktide.log.port import LogAdmin, TopicPartition
from clicktide.settings import Settings
from deploy.embedded import redis

RATE_OVER_S = 5.0
READ_BY_TOPOLOGIES = (topics.EVENTS, *topics.RETRY)


@dataclass(frozen=True, slots=True)
class Position:
    """One partition: the bounds of what the log keeps, and the next offset committed and done (None: never said)."""

    topic: str
    partition: int
    earliest: int
    end: int
    committed: int | None
    done: int | None

    @property
    def reached(self) -> int:
        return max(self.committed or 0, self.done or 0, self.earliest)

    @property
    def lag(self) -> int:
        return max(0, self.end - self.reached)


def positions(
    admin: LogAdmin, group: str, names: list[str], published: Callable[[str], Mapping[str, str]]
) -> list[Position]:
    """The partitions of the topics `names` that exist; `published(topic)` answers the spouts' positions as they are stored."""
    known = admin.topics()
    partitions = [TopicPartition(n, p) for n in names if n in known for p in range(known[n].partitions)]
    bounds, committed = admin.bounds(partitions), admin.committed(group, partitions)
    done = {name: parse_published(published(name)) for name in names}
    return [
        Position(tp.topic, tp.partition, *bounds[tp], committed.get(tp), done[tp.topic].get(tp.partition))
        for tp in partitions
        if tp in bounds
    ]


def parse_published(fields: Mapping[str, str]) -> dict[int, int]:
    """Next offset done by partition; what cannot be read is left out."""
    found = {}
    for name, text in fields.items():
        try:
            found[int(name.rpartition(":")[2])] = int(json.loads(text)["done"])
        except (ValueError, KeyError, TypeError):
            continue
    return found


@dataclass(frozen=True, slots=True)
class Progress:
    """Records: `rate` of those accepted a second, all accepted and done since the log began, and those that wait."""

    rate: float
    accepted: int
    processed: int
    lag: int
    retrying: int
    dead: int


class Watch:
    """Looks at a running demo's log and Redis now and then. `look` never raises, and answers None while one is away."""

    def __init__(self, settings: Settings, unix_socket: Path) -> None:
        from clicktide.log import open_log

        self.settings, self.unix_socket = settings, unix_socket
        self.prefix = settings.text("topics.prefix")
        self.admin = open_log(settings).admin()
        self.samples: list[tuple[float, int]] = []

    def look(self, now: float) -> Progress | None:
        """The progress at `now` (monotonic s)."""
        names = [self.prefix + name for name in (*READ_BY_TOPOLOGIES, topics.DEAD)]
        try:
            found = positions(self.admin, self.settings.text("group"), names, self._published)
        except (ClicktideError, OSError):
            return None
        events = [p for p in found if p.topic == self.prefix + topics.EVENTS]
        dead = [p for p in found if p.topic == self.prefix + topics.DEAD]
        accepted = sum(p.end for p in events)
        return Progress(
            rate=self._rate(now, accepted),
            accepted=accepted,
            processed=sum(p.reached for p in events),
            lag=sum(p.lag for p in events),
            retrying=sum(p.lag for p in found if p not in events and p not in dead),
            dead=sum(p.end - p.earliest for p in dead),
        )

    def _published(self, topic: str) -> dict[str, str]:
        key = keys.spouts(self.settings.text("redis.namespace"), topic)
        answer = redis.ask(self.unix_socket, "HGETALL", key)
        return dict(zip(answer[::2], answer[1::2], strict=True))

    def _rate(self, now: float, accepted: int) -> float:
        self.samples = [s for s in self.samples if s[0] >= now - RATE_OVER_S]
        self.samples.append((now, accepted))
        first_at, first = self.samples[0]
        return (accepted - first) / (now - first_at) if now > first_at else 0.0

    def close(self) -> None:
        self.admin.close()
