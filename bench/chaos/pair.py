"""Two Redis servers, one the primary, one its replica, and the failover from one to the other.

Promises: after a failover the run's link leads to the server that was the replica, and what had not reached it is lost; the
other one follows it as soon as it is back. Who is primary is known here, as it would be by a Sentinel.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.chaos.links import Links
from bench.chaos.plan import HOLE

STORE, REPLICATION = "redis", "replication"
_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Server:
    """`ask` sends one command (raises OSError or `ClicktideError`); `kill` ends the process and waits for its end; `address`
    is as links have them."""

    name: str
    address: str
    ask: Callable[..., Any]
    kill: Callable[[], None]


class Pair:
    """`replication_port`: of the link through which the replica reads its primary."""

    def __init__(self, first: Server, second: Server, links: Links, replication_port: int) -> None:
        self.primary, self.replica = first, second
        self._links, self._port = links, replication_port
        self._asked_at = float("-inf")
        self._parted = False

    def tend(self) -> None:
        """Keeps the replica a replica; to be called a few times a second."""
        now = time.monotonic()
        if self._parted or now - self._asked_at < _EVERY_S:
            return
        self._asked_at = now
        if self._role(self.replica) == "master":
            self._tell(self.replica, "REPLICAOF", "127.0.0.1", str(self._port))

    def part(self) -> bool:
        """From now on nothing reaches the replica; False (and nothing done) while it is not in step."""
        if self._role(self.primary) != "master" or self._link_state() != "connected":
            return False
        self._links.turn(REPLICATION, HOLE)
        self._parted = True
        return True

    def switch(self) -> bool:
        """The primary dies, and the replica takes over; False when that cannot be (the primary stays then)."""
        self._parted = False
        if self._role(self.replica) != "slave":
            self._links.point(REPLICATION, self.primary.address)
            return False
        old, new = self.primary, self.replica
        old.kill()
        # What the link held back is lost with the connection.
        self._links.point(REPLICATION, new.address)
        if not self._tell(new, "REPLICAOF", "NO", "ONE"):
            self._links.point(REPLICATION, old.address)
            return False
        self.primary, self.replica = new, old
        self._links.point(STORE, new.address)
        return True

    def rewrite(self) -> bool:
        """What the operations page says to do after a full disk: a Redis that has been a replica pads its append-only file
        with zeros then, and would not start again with it."""
        return self._tell(self.primary, "BGREWRITEAOF")

    def settle(self) -> None:
        """Undoes `part`."""
        if self._parted:
            self._parted = False
            self._links.point(REPLICATION, self.primary.address)

    def _role(self, server: Server) -> str:
        return _text(self._answer(server, "ROLE", default=[""])[0])

    def _link_state(self) -> str:
        found = self._answer(self.replica, "ROLE", default=[""])
        return _text(found[3]) if len(found) > 3 else ""

    def _tell(self, server: Server, *words: str) -> bool:
        return self._answer(server, *words, default=None) is not None

    @staticmethod
    def _answer(server: Server, *words: str, default: Any) -> Any:
        try:
            return server.ask(*words)
        except Exception:  # away, loading, full: it is asked again
            return default


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def links_of(first: str, store: str, replication_port: int) -> Mapping[str, tuple[str, str]]:
    """The two links of a pair: where callers connect, and where the replica does."""
    return {STORE: (store, first), REPLICATION: (f"tcp:{replication_port}", first)}
