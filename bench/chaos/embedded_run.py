"""Sets up an embedded Clicktide for a chaos run: links, clocks, small disks and Redis's replica, where faults need them.

Promises: what it starts has ended when the block is left, and nothing of it is left outside the run's folder.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.chaos.clocks import Clocks
from bench.chaos.components import CLOCK_WORDS, free_ports
from bench.chaos.disks import Disk, Disks
from bench.chaos.embedded import SHARDS, EmbeddedSite
from bench.chaos.links import Links
from bench.chaos.pair import links_of
from bench.chaos.plan import FAILOVER
from clicktide.settings import Settings, from_environment
from deploy.embedded import redis
from deploy.embedded.child import Child
from deploy.embedded.places import Places
from deploy.embedded.supervisor import running_services

DISK_BASE_MB, DISK_KB_A_RECORD = 48, 6


@contextmanager
def running_embedded(
    root: Path,
    settings: Settings,
    kinds: Collection[str],
    disks: Disks,
    records: float,
    say: Callable[[str], None],
) -> Iterator[EmbeddedSite]:
    """The embedded services below `root`, with what the chosen kinds of faults need; `records` will be sent."""
    places = Places(root)
    with ExitStack() as things:
        scratch = Path(tempfile.mkdtemp(prefix="clicktide-chaos-"))
        things.callback(shutil.rmtree, scratch, ignore_errors=True)
        mounted = make_disks(places, disks, records)
        port, collector_port, replication_port = free_ports(3)
        store = scratch / "redis.sock"
        links = Links(
            {
                **links_of(f"unix:{places.socket}", f"unix:{store}", replication_port),
                "collector": (f"tcp:{collector_port}", f"tcp:{port}"),
            },
            root / "chaos" / "proxy.log",
        )
        things.callback(links.close)
        second = second_redis(places, scratch / "second.sock") if FAILOVER in kinds else None
        if second is not None:
            second.start(time.monotonic())
            things.callback(second.end)
            things.callback(second.ask_to_end)
        clocks = Clocks(scratch / "clocks", CLOCK_WORDS)
        led = from_environment({}, {**settings.options(), "tide.redis.url": f"unix://{store}"})
        services = things.enter_context(
            running_services(places, lambda: led, port, say, environ_of=clocks.environment)
        )
        site = EmbeddedSite(services, led, links, clocks, mounted, collector_port)
        if second is not None:
            site.add_replica(second, scratch / "second.sock", replication_port)
        yield site


def second_redis(places: Places, socket: Path) -> Child:
    """A Redis like the demo's, with a folder and a socket of its own."""
    folder = places.redis / "second"
    folder.mkdir()
    conf = folder / "redis.conf"
    conf.write_text(redis.configuration(folder, socket), "utf-8")
    log = places.root / "second-redis.log"
    return Child("second", [redis.binary(), str(conf)], log, os.environ, lambda: redis.answers(socket))


def make_disks(places: Places, disks: Disks, records: float) -> dict[str, Disk]:
    """A small disk for each store, with room for so many records, by target; files are led there by a link."""
    megabytes = int(DISK_BASE_MB + DISK_KB_A_RECORD * records / 1024)
    folders = {"redis": places.redis, **{name: places.root / "disks" / name for name in ("log", *SHARDS)}}
    mounted = {target: disks.mount(folder, megabytes) for target, folder in folders.items()}
    for target, file in (("log", places.log), *zip(SHARDS, places.shards, strict=True)):
        file.symlink_to(folders[target] / file.name)
    return {target: disk for target, disk in mounted.items() if disk}
