"""Erasure on a real Redis and SQL: nothing of the user is left, and nothing comes back, whatever comes in between."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis_server import running
from sql_dialects import new_sqlite
from unit.core.making import event, raw, row

from clicktide import keys, persist
from clicktide.breaker import Breakers
from clicktide.erasure import Erasure, on_log
from clicktide.errors import StoreUnavailable
from clicktide.log.embedded import EmbeddedLog
from clicktide.log.port import Outgoing
from clicktide.redisstore import erased
from clicktide.redisstore.client import connect
from clicktide.redisstore.cluster import PartAway
from clicktide.redisstore.store import RedisStore
from clicktide.row import SHARD
from clicktide.settings import Settings
from clicktide.sql import SqlStore
from clicktide.tombstones import tombstones_of

pytestmark = pytest.mark.embedded

GONE = "gone"
MINE = [
    row(f"m{i}", offset=i, user_id=GONE, type="pay", order_id="o", amount=i)
    if i % 2
    else row(f"m{i}", i, user_id=GONE)
    for i in range(4)
]
SHARD_OF_GONE = MINE[0][SHARD]
NEIGHBOUR = next(f"u{i}" for i in range(1000) if row("n", user_id=f"u{i}")[SHARD] == SHARD_OF_GONE)
OTHERS = [row(f"x{i}", offset=10 + i, user_id=NEIGHBOUR) for i in range(3)]
_names = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(tmp_path_factory.mktemp("redis")) as found:
        yield found


class Place:
    """One namespace and one DSN; `wait` is real only where a test kills Redis."""

    def __init__(self, url, folder, wait=lambda _s: None):
        self.name = f"e{next(_names)}"
        dsn = new_sqlite(folder / f"{self.name}.sqlite")
        self.settings = Settings({"redis.url": url, "redis.namespace": self.name, "sql.dsns": dsn})
        self.client = connect(self.settings)
        self.sql = SqlStore(self.settings)
        self.erasure = Erasure(self.settings, lambda: 1_760_000_000_000, wait)
        self.store = self.new_store()

    def new_store(self):
        return RedisStore(self.settings, tombstones=tombstones_of(self.settings))

    def take(self, rows):
        """As the two bolts do."""
        breakers = Breakers(time.monotonic, 3, 1.0)
        done = persist.apply(self.store, breakers.of("redis"), rows)
        assert not done.failures
        assert not persist.persist(self.sql, breakers, done.rows)
        return done

    def left(self):
        """All that names the user."""
        return (
            self.client.exists(keys.timeline(self.name, SHARD_OF_GONE, GONE)),
            self.sql.events_of_user(SHARD_OF_GONE, GONE),
            self.sql.order("o"),
        )


NOTHING = (0, [], None)


@pytest.fixture
def place(server, tmp_path):
    return Place(server.url, tmp_path)


def test_all_goes_and_what_comes_later_is_dropped(place):
    place.take([*MINE[:3], *OTHERS[:2]])
    assert place.erasure.erase(GONE)[:3] == (3, 3, 1)
    assert place.left() == NOTHING
    done = place.take([MINE[0], OTHERS[2], MINE[3], OTHERS[0]])
    assert (done.erased, done.duplicates, done.rows) == (2, 0, [OTHERS[2], OTHERS[0]])
    assert place.left() == NOTHING
    assert place.client.zcard(keys.timeline(place.name, SHARD_OF_GONE, NEIGHBOUR)) == 3
    assert place.erasure.erase(GONE)[:3] == (0, 0, 0)
    assert place.erasure.is_erased(GONE)


def test_lifted_later_events_count(place):
    assert not place.erasure.lift(GONE)
    place.erasure.erase(GONE)
    assert place.erasure.lift(GONE)
    assert place.take(MINE).erased == 0
    assert len(place.sql.events_of_user(SHARD_OF_GONE, GONE)) == len(MINE)


@pytest.mark.parametrize("user", ["-", "lift", "load", "erased", "é中", "a b"])
def test_any_name(place, user):
    one = row("e", user_id=user)
    place.take([one])
    place.erasure.erase(user)
    assert place.take([one]).erased == 1
    assert not place.client.exists(keys.timeline(place.name, one[SHARD], user))


def test_a_redis_that_lost_everything_is_told_by_sql(place):
    place.erasure.erase(GONE)
    place.client.flushall()
    assert place.take([*MINE, *OTHERS]).erased == len(MINE)
    assert place.left() == NOTHING


def test_while_nobody_can_tell_events_of_an_empty_redis_wait(place):
    def away(_shard):
        raise StoreUnavailable("mysql.0", "away")

    store = RedisStore(place.settings, tombstones=away)
    found = store.apply([*MINE, *OTHERS])
    assert len(found.failed) == len(MINE) + len(OTHERS)
    assert all(isinstance(e, PartAway) and "mysql.0" in str(e) for e in found.failed.values())
    assert place.client.keys(f"tide:{place.name}:*") == []
    place.take(OTHERS)
    assert not store.apply(MINE).failed, "Redis has been told by another: SQL is not asked again"


def test_what_the_log_still_has_is_counted(place, tmp_path):
    log = EmbeddedLog(tmp_path / "log.db", 64 << 20, lambda: 1_760_000_000_000)
    log.admin().create_topics({"tide.retry.1s": 2, "tide.dead": 2})
    for topic, user in [("retry.1s", GONE), ("dead", GONE), ("dead", GONE), ("dead", NEIGHBOUR)]:
        log.producer().send([Outgoing(f"tide.{topic}", user.encode(), raw(**event(user_id=user)), ())], 5.0)
    assert on_log(log, "tide.", GONE) == (1, 2)
    assert place.erasure.erase(GONE, log)[3:] == (1, 2)


STEPS = st.lists(
    st.sampled_from(["apply", "write", "both", "erase", "entomb", "tell", "delete", "flush", "fresh"]),
    max_size=8,
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS, STEPS)
def test_erased_at_any_point_between_any_steps_nothing_is_left(place, before, after):
    """Also one that died halfway (`entomb`, `tell`, `delete` are its steps) and is done again."""
    place.client.flushall()
    place.sql.entomb(SHARD_OF_GONE, GONE, 0, lifted=True)
    place.sql.erase_user(SHARD_OF_GONE, NEIGHBOUR)
    for step in [*before, "erase", *after, "both"]:
        if step in ("apply", "both"):
            place.store.apply([*MINE, *OTHERS])
        if step in ("write", "both"):
            place.sql.write(0, [*MINE, *OTHERS])
        if step == "erase":
            place.erasure.erase(GONE)
        elif step == "entomb":
            place.sql.entomb(SHARD_OF_GONE, GONE, 0)
        elif step == "tell":
            erased.tell(place.client, place.name, SHARD_OF_GONE, place.sql.erased_users(SHARD_OF_GONE))
        elif step == "delete":
            place.sql.erase_user(SHARD_OF_GONE, GONE)
        elif step == "flush":
            place.client.flushall()
        elif step == "fresh":
            place.store = place.new_store()
    assert place.left() == NOTHING
    assert len(place.sql.events_of_user(SHARD_OF_GONE, NEIGHBOUR)) == len(OTHERS)


def test_it_outlives_a_redis_that_is_killed_at_once(tmp_path):
    (tmp_path / "redis").mkdir()
    with running(tmp_path / "redis") as server:
        place = Place(server.url, tmp_path, time.sleep)
        place.take(MINE)
        place.erasure.erase(GONE)
        server.kill()
        server.start()
        assert place.take([*MINE, *OTHERS]).erased == len(MINE)
        assert place.left() == NOTHING
