"""Redis from Debian: append-only file synced every second, a memory limit, nothing ever evicted."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from deploy.stack.debian import program
from deploy.stack.servers.base import Server, accepts, write_if_changed
from deploy.stack.settings import LOOPBACK, StackSettings


class Redis(Server):
    """The fast store; answers when PING does and its data is loaded."""

    group: ClassVar[str] = "redis"

    def __init__(self, settings: StackSettings) -> None:
        super().__init__("redis", settings.redis_port, settings)

    @property
    def configuration(self) -> Path:
        """The rendered redis.conf."""
        return self.folder / "redis.conf"

    def prepare(self) -> None:
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        write_if_changed(self.configuration, redis_conf(self.settings, self.folder / "data", self.log))

    def argv(self) -> list[str]:
        return [program("redis-server") or "redis-server", str(self.configuration)]

    def answers(self) -> bool:
        if not accepts(self.port):
            return False
        from redis import Redis as Client
        from redis import RedisError
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        # By itself the client asks one that hangs again and again, for half a minute.
        once = Retry(NoBackoff(), 0)
        try:
            with Client(host=LOOPBACK, port=self.port, socket_timeout=2, retry=once) as client:
                return bool(client.ping())  # refused with LOADING until the data is there
        except RedisError:
            return False


def redis_conf(settings: StackSettings, data: Path, log: Path) -> str:
    """Redis' configuration. Each value that may hold blanks is quoted."""
    return "".join(
        f"{line}\n"
        for line in (
            f"bind {LOOPBACK}",
            f"port {settings.redis_port}",
            "daemonize no",
            f'dir "{data}"',
            f'logfile "{log}"',
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            # Rewrites of the append-only file take half the CPU; disk is cheaper.
            "rdbcompression no",
            # A small file is read in seconds: no need to write it anew each time that it has doubled.
            "auto-aof-rewrite-min-size 512mb",
            # A day's claims of a shard may be one table, which would hold up all else when it expires.
            "lazyfree-lazy-expire yes",
            # A timeline as one piece of memory: 60 % of what a list of pieces takes.
            "zset-max-listpack-entries 256",
            "zset-max-listpack-value 1024",
            f"maxmemory {settings.redis_memory_mb}mb",
            "maxmemory-policy noeviction",
            "tcp-backlog 128",
        )
    )
