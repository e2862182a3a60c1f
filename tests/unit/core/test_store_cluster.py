"""The Redis store on a real cluster of three: as on one server, and each node's failures are its own shards' only."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from redis.crc import key_slot
from redis_cluster import LOST_MS, running_cluster, until
from unit.core import test_store as contract
from unit.core.making import NOW, row

from bench.ledger.redis_side import collect
from clicktide import keys
from clicktide.errors import SettingError, StoreUnavailable
from clicktide.read import buckets
from clicktide.read.plan import run, run_async
from clicktide.read.spans import Span
from clicktide.redisstore.client import connect, run_id
from clicktide.redisstore.cluster import PartAway, parts_of
from clicktide.row import EVENT_ID, SHARD, USER_ID
from clicktide.settings import Settings
from services.query.stores import connect as connect_async

pytestmark = pytest.mark.embedded

SPAN = Span("m", NOW // 60_000 * 60 - 600, 20)

# What holds of one server holds of a cluster. Left out: what asks one server for its clock or its limits.
for _name in (
    "test_all_that_an_event_does",
    "test_every_key_is_in_its_shards_slot",
    "test_the_same_record_again_is_a_replay",
    "test_the_same_event_in_another_record_is_a_duplicate",
    "test_another_event_under_the_same_id_is_a_conflict",
    "test_within_one_slice_the_first_wins",
    "test_what_is_left_out_changes_nothing_of_the_rest",
    "test_any_slicing_and_any_replays_come_to_the_same",
    "test_two_workers_at_the_same_time",
    "test_the_script_cache_is_flushed",
    "test_one_shard_that_fails_leaves_the_others_alone",
    "test_namespaces_do_not_meet",
):
    globals()[_name] = getattr(contract, _name)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running_cluster(tmp_path_factory.mktemp("cluster")) as found:
        yield found


hashes = contract.hashes


@pytest.fixture
def box(server, hashes):
    return contract.Box(server.url, **{"claims.buckets": hashes})


@pytest.fixture
def cluster(tmp_path):
    """One that a test may break."""
    with running_cluster(tmp_path) as found:
        yield found


@contextmanager
def paused(node):
    node.pause()
    try:
        yield
    finally:
        node.resume()


def answers(ask):
    """Whether `ask` does not find a store away."""
    try:
        ask()
    except StoreUnavailable:
        return False
    return True


def everywhere(n=200, **fields):
    """Events of many users: all nodes have some."""
    return [row(f"e{i}", user_id=f"u{i}", **fields) for i in range(n)]


def node_of(cluster, r, name):
    return cluster.owner(key_slot(keys.shard_prefix(name, r[SHARD]).encode()))


def short_limit(store, node, seconds):
    """The store waits so long for this node only: how soon the others answer is the machine's matter."""
    client = store._client.client()
    pool = client.get_redis_connection(client.get_node("127.0.0.1", node.port)).connection_pool
    pool.connection_kwargs.update(socket_timeout=seconds, socket_connect_timeout=seconds)


def count_at(node, name):
    """Events that this node has."""
    found = node.client.scan_iter(f"tide:{name}:*:b:a", count=1000)
    return sum(int(node.client.hget(key, "n:view") or 0) for key in found)


def apply_until_done(store, rows, seconds=60):
    """As the retry topics do: what failed comes again, until nothing fails."""
    deadline = time.monotonic() + seconds
    while rows:
        try:
            failed = store.apply(rows).failed
        except StoreUnavailable:
            failed = dict.fromkeys(range(len(rows)))
        rows = [rows[i] for i in failed]
        assert time.monotonic() < deadline, f"{len(rows)} rows still fail"
        if rows:
            time.sleep(0.05)


def test_no_script_crosses_a_slot(server, box):
    rows = everywhere()
    assert box.store().apply(rows) == contract.FRESH
    slots = {r[SHARD]: key_slot(keys.shard_prefix(box.name, r[SHARD]).encode()) for r in rows}
    found = [key for n in server.masters for key in n.client.scan_iter(f"tide:{box.name}:*", count=1000)]
    assert len(slots) > 50
    assert {int(key.split(b"{s")[1].split(b"}")[0]) for key in found} == set(slots)
    for key in found:
        assert key_slot(key) == slots[int(key.split(b"{s")[1].split(b"}")[0])], key
    assert all(any(n.client.scan_iter(f"tide:{box.name}:*")) for n in server.masters)


def test_readers_and_the_ledger_see_what_was_applied(server, box):
    rows = everywhere()
    box.store().apply(rows)
    shards = box.settings.integer("shards.count")
    read = buckets.totals(box.name, shards)
    assert run(box.client, read)["n:view"] == len(rows)

    async def ask():
        client = connect_async(box.settings, 5.0)
        try:
            first = await run_async(client, read)
            for node in server.masters:
                node.client.script_flush()
            return first, await run_async(client, read)
        finally:
            await client.aclose()

    first, again = asyncio.run(ask())
    assert first["n:view"] == again["n:view"] == len(rows)
    side = collect(box.settings, [r[USER_ID] for r in rows], lambda _g, _s: True)
    assert side.totals["n:view"] == len(rows)
    assert {e.event_id for its in side.timelines.values() for e in its} == {r[EVENT_ID] for r in rows}


def test_a_node_that_dies_fails_its_own_shards_only(cluster):
    box = contract.Box(cluster.url)
    store, rows = box.store(), everywhere()
    before = run_id(box.client)
    store.apply(rows[:50])
    owners = [node_of(cluster, r, box.name) for r in rows]
    dead = cluster.masters[1]
    dead.kill()
    for _ in range(3):  # its breaker, too, is its own
        done = store.apply(rows)
        assert {i for i, o in enumerate(owners) if o is dead} == set(done.failed)
        assert all(isinstance(e, PartAway) and e.retriable for e in done.failed.values())
    own = [r for r, o in zip(rows, owners, strict=True) if o is dead]
    assert len(store.apply(own).failed) == len(own)  # and does not stand for the whole store
    with pytest.raises(StoreUnavailable):
        run_id(box.client)
    dead.start()
    cluster.settled()
    apply_until_done(store, rows)
    assert box.totals()["n:view"] == len(rows)
    until(lambda: answers(lambda: run_id(box.client)))
    assert run_id(box.client) != before


def test_a_node_that_hangs_costs_the_others_nothing_but_a_probe(cluster):
    box = contract.Box(cluster.url, **{"breaker.probe_s": 3600})
    store, rows = box.store(), everywhere()
    hung = cluster.masters[2]
    short_limit(store, hung, 0.3)
    store.apply(rows[:50])
    owners = [node_of(cluster, r, box.name) for r in rows]
    with paused(hung):
        for _ in range(3):
            done = store.apply(rows)
            assert {i for i, o in enumerate(owners) if o is hung} == set(done.failed)
        assert all("failed just now" in str(e) for e in done.failed.values()), "its breaker is open"
        there = sum(count_at(n, box.name) for n in cluster.masters if n is not hung)
        assert there == len(rows) - owners.count(hung)
    cluster.settled()
    apply_until_done(box.store(), rows)  # some of it the node may have done when it went on
    assert box.totals()["n:view"] == len(rows)


def test_a_replica_takes_over_and_reading_again_restores_all(cluster):
    box = contract.Box(cluster.url)
    store, rows = box.store(), everywhere()
    cluster.add_replica(cluster.masters[0])
    store.apply(rows)
    before = run_id(box.client)
    cluster.lose_after(1000)
    cluster.masters[0].kill()
    cluster.nodes.remove(cluster.masters[0])
    apply_until_done(store, rows)  # whatever the replica had not heard of is applied, the rest is left alone
    cluster.lose_after(LOST_MS)
    until(lambda: answers(lambda: run_id(box.client)))
    assert run_id(box.client) != before
    assert box.totals()["n:view"] == len(rows)


def test_a_slot_moves_while_events_flow(cluster):
    """Key by key, as a resharding does: meanwhile the slot's shard waits, whole, and others go on."""
    box = contract.Box(cluster.url)
    store = box.store()
    mine = [row("m0", user_id="u1")]
    apply_until_done(store, mine)
    slot = key_slot(keys.shard_prefix(box.name, mine[0][SHARD]).encode())
    source = cluster.owner(slot)
    target = next(n for n in cluster.masters if n is not source)
    enough, beside, waited = threading.Event(), [], []

    def flow():
        """Until the slot has moved, however soon or late that is."""
        flowing = box.store()
        while not enough.is_set():
            mine.append(row(f"m{len(mine)}", user_id="u1"))
            beside.append(row(f"b{len(beside)}", user_id=f"b{len(beside)}"))
            pair = [mine[-1], beside[-1]]
            done = flowing.apply(pair)
            waited.extend(str(e) for e in done.failed.values())
            apply_until_done(flowing, [pair[n] for n in done.failed])

    with ThreadPoolExecutor(1) as pool:
        flowed = pool.submit(flow)
        try:
            until(lambda: flowed.done() or len(mine) > 150, "the flow's beginning")
            cluster.begin_move(slot, target)
            until(lambda: flowed.done() or waited, "an event that waits for the slot")
            # The readers do not take the half that is here for the whole.
            with pytest.raises(StoreUnavailable, match="being moved"):
                run(box.client, buckets.series(box.name, 64, SPAN, buckets.EVENT_FIELDS))
            while cluster.move_keys(slot, source, target, most=3):
                pass
            cluster.end_move(slot, target)
            moved = len(mine)
            until(lambda: flowed.done() or len(mine) > moved + 50, "the flow after it")
        finally:
            enough.set()
        flowed.result(60)
    assert waited
    assert all("being moved" in w for w in waited)
    assert cluster.owner(slot) is target
    apply_until_done(store, mine)  # by its old table: MOVED is followed, and all of it is a replay
    assert box.totals()["n:view"] == len(mine) + len(beside)
    assert len(box.timeline("u1", mine[0][SHARD])) == 200


def test_nobody_there():
    client = connect(Settings({"redis.url": "redis+cluster://127.0.0.1:1,127.0.0.1:2", "redis.timeout_s": 1}))
    with pytest.raises(StoreUnavailable, match="cannot be connected"):
        run_id(client)


@pytest.mark.parametrize(
    ("url", "first", "others"),
    [
        ("redis+cluster://a:1,b:2", "redis://a:1", [("b", 2)]),
        ("redis+cluster://a", "redis://a", []),
        (
            "rediss+cluster://me:p%40ss@a:1,b:2/0?ssl_ca_certs=/ca.pem",
            "rediss://me:p%40ss@a:1?ssl_ca_certs=/ca.pem",
            [("b", 2)],
        ),
    ],
)
def test_urls(url, first, others):
    assert parts_of(url) == (first, others)


@pytest.mark.parametrize(
    "url", ["redis+cluster://", "redis+cluster://a:x", "redis+cluster://a:1,", "redis+cluster://a:1/3"]
)
def test_bad_urls(url):
    with pytest.raises(SettingError, match=r"redis\.url"):
        parts_of(url)
