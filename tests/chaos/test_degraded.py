"""Degraded modes, each made by a fault in one embedded Clicktide: what goes on, what waits, and that `/v1/status`,
every answer and the metrics say so."""

from __future__ import annotations

import itertools
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from mariadb_server import have_mariadb, mariadb_server

from bench.chaos.disks import Disks
from bench.chaos.embedded import EmbeddedSite
from bench.chaos.embedded_run import running_embedded
from bench.chaos.held import Locked
from bench.chaos.plan import CUT
from bench.chaos.proxy import OPEN
from clicktide import topics
from clicktide.log import open_log
from clicktide.log.port import TopicPartition
from clicktide.settings import from_environment, options_of
from deploy.embedded.places import Places

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = [pytest.mark.embedded, pytest.mark.chaos, pytest.mark.timeout(400)]
PATIENCE_S = 90.0
# Time-outs and pauses as short as they may be: a mode is entered after some failures and left after a probe.
QUICK = {
    "tide.sql.timeout_s": 0.4,
    "tide.redis.timeout_s": 1.0,
    "tide.breaker.failures": 2,
    "tide.breaker.probe_s": 0.5,
    "tide.retry.park_tier": "1s",
    "tide.commit.delay_s": 0.5,
    "tide.http.store_timeout_s": 1.0,
}


@dataclass
class Shop:
    """The running system, and a client that sends events of as many users as there are shards."""

    site: EmbeddedSite
    client: httpx.Client
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    sent: int = 0
    last: str = ""

    def status(self) -> dict[str, Any]:
        self.site.tend()
        answer = self.client.get("/v1/status")
        assert answer.status_code == 200
        return answer.json()

    def post(self) -> httpx.Response:
        """Some events of many users: both shard files get a part of them."""
        numbers = [next(self.numbers) for _ in range(40)]
        now = time.time_ns() // 1_000_000
        events = [
            {"event_id": f"e{i}", "type": "view", "user_id": f"u{i}", "occurred_at": now} for i in numbers
        ]
        answer = self.client.post("/v1/events", json=events)
        if answer.status_code == 202:
            self.sent += len(events)
        return answer

    def counted(self) -> int | None:
        """Views in Redis; None while it is away."""
        answer = self.client.get("/v1/metrics/events")
        return answer.json()["totals"].get("view", 0) if answer.status_code == 200 else None

    def metrics(self) -> str:
        return self.client.get("/metrics").text

    def all_there(self) -> bool:
        """Nothing waits any more, and each event is counted once."""
        status = self.status()
        waiting = [tier["records"] for tier in (status["retry"] or {"?": {"records": 1}}).values()]
        lag = (status["lag"] or {"records": 1})["records"]
        counted = self.counted()
        self.last = (
            f"lag {lag}, waiting {waiting}, degraded {status['degraded']}, {counted} of {self.sent} counted"
        )
        return not lag and not any(waiting) and not status["degraded"] and counted == self.sent


@contextmanager
def running_shop(root: Path, **more: str) -> Iterator[Shop]:
    (root / "chaos").mkdir()
    options = options_of(ROOT / "config.json", "embedded") | Places(root).options() | QUICK | more
    with (
        running_embedded(
            root, from_environment({}, options), (), Disks(wanted=False), 1000, lambda _: None
        ) as site,
        httpx.Client(base_url=site.url, timeout=20) as client,
    ):
        found = Shop(site, client)
        assert found.post().status_code == 202
        until(found.all_there, lambda: found.last)
        yield found


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Iterator[Shop]:
    with running_shop(tmp_path_factory.mktemp("degraded")) as found:
        yield found


def until(met: Callable[[], Any], why: Callable[[], str] = str) -> Any:
    """What `met` answers as soon as that is true."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := met()):
        assert time.monotonic() < deadline, why()
        time.sleep(0.1)
    return found


@contextmanager
def locked(site: EmbeddedSite, *targets: str) -> Iterator[None]:
    held = []
    try:
        held.extend(until(partial(lock, site, target)) for target in targets)
        yield
    finally:
        for lock_ in held:
            lock_.end()


def lock(site: EmbeddedSite, target: str) -> Locked | None:
    try:
        return Locked(site.lock_file(target), float("inf"))
    except sqlite3.Error:
        return None  # a writer has it


@contextmanager
def cut(site: EmbeddedSite, target: str) -> Iterator[None]:
    site.turn_link(target, CUT)
    try:
        yield
    finally:
        site.turn_link(target, OPEN)


def sending(shop: Shop, met: Callable[[], Any]) -> Any:
    """Sends until it is met: breakers open by what fails, not by time."""

    def step() -> Any:
        assert shop.post().status_code == 202
        return met()

    return until(step)


def test_a_shard_away_leaves_the_others_and_its_rows_wait(shop):
    with locked(shop.site, "shard-1"):
        status = sending(shop, lambda: (s := shop.status())["breakers"] and "mysql.1" in s["degraded"] and s)
        assert {name.split("/")[1] for name in status["breakers"]} == {"mysql.1"}
        assert status["state"] == "degraded"
        assert "mysql.1" in shop.client.get("/v1/metrics/events").json()["degraded"]
        assert 'clicktide_degraded{store="mysql.1"} 1.0' in shop.metrics()
        # Redis goes on: what was sent is counted while its rows wait in a retry topic.
        until(lambda: shop.counted() == shop.sent)
        until(lambda: any(tier["records"] for tier in (shop.status()["retry"] or {}).values()))
        until(lambda: (lag := shop.status()["lag"]) and lag["records"] < shop.sent)
        redrive_says = shop.site.services.places.logs / "redrive.log"
        until(lambda: b"held until it is back: what waits for mysql.1" in redrive_says.read_bytes())
    sending(
        shop, lambda: not shop.status()["degraded"]
    )  # without traffic nobody tries the store, for half a minute
    until(shop.all_there, lambda: shop.last)
    until(lambda: b"nothing is held any more" in redrive_says.read_bytes())
    assert shop.status()["dead"] == 0
    assert 'clicktide_degraded{store="mysql.1"} 1.0' not in shop.metrics()


def test_redis_away_leaves_sql_and_the_counts_catch_up_exactly(shop):
    user = f"u{next(shop.numbers) + 1}"  # the first of the next events
    with cut(shop.site, "redis"):
        status = sending(shop, lambda: (s := shop.status())["stores"]["redis"] == "away" and s)
        assert "redis" in status["degraded"]
        assert status["state"] == "degraded"
        assert 'clicktide_degraded{store="redis"} 1.0' in shop.metrics()

        def from_sql() -> Any:
            answer = shop.client.get(f"/v1/users/{user}/timeline")
            return answer.status_code == 200 and answer.json()["events"] and answer.json()

        body = sending(shop, from_sql)
        assert [e["user_id"] for e in body["events"]] == [user]
        assert "redis" in body["degraded"]
    sending(shop, lambda: not shop.status()["degraded"])
    until(shop.all_there, lambda: shop.last)
    assert shop.status()["dead"] == 0


def test_the_log_away_is_a_503_and_what_was_accepted_is_there(shop):
    before = shop.sent
    with locked(shop.site, "log"):
        answer = until(lambda: (a := shop.post()).status_code == 503 and a)
        assert answer.headers["retry-after"]
        assert answer.json()["status"] == 503
        # The one who waited may be told before the one who writes.
        until(lambda: "clicktide_collector_log_up 0.0" in shop.metrics())
    until(lambda: shop.post().status_code == 202)
    assert "clicktide_collector_log_up 1.0" in shop.metrics()
    assert shop.sent > before
    until(shop.all_there, lambda: shop.last)


@pytest.mark.skipif(not have_mariadb(), reason="no MariaDB here")
def test_with_every_store_away_the_spout_pauses_and_nothing_is_moved_about(tmp_path):
    # A SQLite file that cannot be written can still be read, and so is not away: a server that hangs is.
    with mariadb_server(tmp_path / "mariadb") as server:
        dsn = server.dsn("tide")
        with running_shop(tmp_path, **{"tide.sql.dsns": dsn}) as shop:
            spout_says = shop.site.services.places.logs / "events.log"
            try:
                server.pause()
                with cut(shop.site, "redis"):
                    until(lambda: b"no store answers: nothing" in spout_says.read_bytes())
                    before = settled(lambda: retry_ends(shop.site))
                    for _ in range(8):
                        assert shop.post().status_code == 202, "the collector goes on: the log is there"
                        status = until(lambda: (s := shop.status())["stores"]["log"] == "up" and s)
                        assert set(status["stores"].values()) == {"away", "up"}
                    assert {"redis", "mysql.0"} <= set(status["degraded"])
                    assert 'clicktide_degraded{store="redis"} 1.0' in shop.metrics()
                    assert until(lambda: (s := shop.status())["lag"] and s["lag"]["records"] >= 8 * 40)
                    assert retry_ends(shop.site) == before
            finally:
                server.resume()
            until(shop.all_there, lambda: shop.last)
            assert shop.status()["dead"] == 0


def retry_ends(site: EmbeddedSite) -> int:
    """How many records the retry topics have had."""
    prefix = site.settings.text("topics.prefix")
    admin = open_log(site.settings).admin()
    try:
        known = admin.topics()
        places = [
            TopicPartition(prefix + name, p)
            for name in topics.RETRY
            for p in range(known[prefix + name].partitions)
        ]
        return sum(end for _, end in admin.bounds(places).values())
    finally:
        admin.close()


def settled(count: Callable[[], int]) -> int:
    """A count that has stayed for two seconds: what was on its way has arrived."""
    found, since = count(), time.monotonic()

    def stayed() -> bool:
        nonlocal found, since
        if (now := count()) != found:
            found, since = now, time.monotonic()
        return time.monotonic() - since > 2

    until(stayed)
    return found
