"""The Redis store on a real redis-server: each event once, whatever is repeated, lost, restarted or cut anew."""

from __future__ import annotations

import itertools
import random
import threading
from hashlib import blake2b

import pytest
import redis
from redis_cluster import until
from redis_server import running
from unit.core.making import DIGEST, NOW, pay, row

from clicktide import aggregate, claims, keys
from clicktide.errors import StoreRefused, StoreUnavailable
from clicktide.member import rows_of
from clicktide.parse import topic_digest
from clicktide.redisstore.client import connect, run_id
from clicktide.redisstore.store import Applied, RedisStore
from clicktide.row import EVENT_ID, EXTRA, FINGERPRINT, SHARD, TOPIC_ID, USER_ID
from clicktide.settings import Settings

pytestmark = pytest.mark.embedded

DAY = 86_400
WEEK_MS = 7 * DAY * 1000
NOTHING = frozenset()
FRESH = Applied(NOTHING, NOTHING, NOTHING, {})
_names = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(tmp_path_factory.mktemp("redis")) as found:
        yield found


@pytest.fixture(params=[256, 1], ids=["many_hashes", "one_hash"])
def hashes(request):
    """In how many hashes a shard's claims are: the script has a way for one and a way for many."""
    return request.param


@pytest.fixture
def box(server, hashes):
    return Box(server.url, **{"claims.buckets": hashes})


class Box:
    """One namespace of the server, and what is in it."""

    def __init__(self, url, name=None, **given):
        self.name = name or f"t{next(_names)}"
        self.settings = Settings(
            {"redis.url": url, "redis.namespace": self.name, "redis.timeout_s": 20, **given}
        )
        self.client = connect(self.settings)

    def store(self, now_s=0):
        return RedisStore(self.settings, now_s=now_s)

    def state(self, but_claims=False):
        """Every key's value in this namespace."""
        found = {}
        for key in sorted(self.client.scan_iter(f"tide:{self.name}:*", count=1000)):
            if b"}:c:" in key and but_claims:
                continue
            kind = self.client.type(key)
            if kind == b"hash":
                found[key] = self.client.hgetall(key)
            elif kind == b"zset":
                found[key] = self.client.zrange(key, 0, -1, withscores=True)
            else:
                found[key] = self.client.get(key)
        return found

    def totals(self):
        """All-time counts, over all shards."""
        out = {}
        for key in self.client.scan_iter(f"tide:{self.name}:*:b:a"):
            for name, n in self.client.hgetall(key).items():
                out[name.decode()] = out.get(name.decode(), 0) + int(n)
        return out

    def buckets(self):
        """(granularity, start) -> field -> sum over the shards."""
        out = {}
        for key in self.client.scan_iter(f"tide:{self.name}:*:b:*"):
            _, _, rest = key.decode().partition("}:b:")
            granularity, _, start = rest.partition(":")
            into = out.setdefault((granularity, int(start or 0)), {})
            for name, n in self.client.hgetall(key).items():
                into[name.decode()] = into.get(name.decode(), 0) + int(n)
        return out

    def timeline(self, user, shard):
        members = self.client.zrange(keys.timeline(self.name, shard, user), 0, -1, withscores=True)
        return [(rows_of([m])[0][EVENT_ID], int(score)) for m, score in members]


def moved(r, offset, digest=DIGEST):
    """The same event in another record."""
    return [*r[:-3], digest, r[-2], offset]


def expected_buckets(rows):
    found = aggregate.buckets(aggregate.effects(rows, WEEK_MS))
    return {(g, start): counts for g, starts in found.items() for start, counts in starts.items()}


# -- one event


def test_all_that_an_event_does(box):
    r = row(
        "e", **{k: v for k, v in pay("e", 1999, category_id="c1", province="浙江").items() if k != "event_id"}
    )
    assert box.store().apply([r]) == FRESH
    shard = r[SHARD]
    assert box.buckets() == expected_buckets([r])
    assert box.timeline("u1", shard) == [("e", NOW - 1000)]
    hour = (NOW // 1000 - 1) // 3600 * 3600
    for name in (keys.visitors, keys.payers):
        for key in (
            name(box.name, shard, "h", hour),
            name(box.name, shard, "d", hour // DAY * DAY),
            name(box.name, shard, "a", None),
        ):
            assert box.client.pfcount(key) == 1, key
    second = NOW // 1000 - 1
    ttls = {
        keys.bucket(box.name, shard, "s", second): 2 * 3600,
        keys.bucket(box.name, shard, "m", second // 60 * 60): 192 * 3600,
        keys.bucket(box.name, shard, "h", hour): 1080 * 3600,
        keys.bucket(box.name, shard, "d", hour // DAY * DAY): 9600 * 3600,
        keys.timeline(box.name, shard, "u1"): 720 * 3600,
        keys.visitors(box.name, shard, "h", hour): 1080 * 3600,
    }
    for key, seconds in ttls.items():
        assert seconds < box.client.ttl(key) <= seconds * 17 // 16 + 1, key
    assert box.client.ttl(keys.totals(box.name, shard)) == -1
    assert box.client.ttl(keys.payers(box.name, shard, "a", None)) == -1


def test_every_key_is_in_its_shards_slot(box):
    rows = [row(f"e{i}", user_id=f"u{i}") for i in range(20)]
    box.store().apply(rows)
    tags = {key.decode().split("{")[1].split("}")[0] for key in box.state()}
    assert tags == {f"s{r[SHARD]}" for r in rows}


@pytest.mark.parametrize("length", [0, 1500, 2500, 40_000, 70_000])
def test_a_timeline_has_what_it_was_given_however_long(server, length):
    box, made = Box(server.url), row("e")
    made[EXTRA] = '漢"\\\x7f\n' + "x" * length
    assert box.store().apply([made]) == FRESH
    (member,) = box.client.zrange(keys.timeline(box.name, made[SHARD], "u1"), 0, -1)
    assert rows_of([member]) == [made[: EXTRA + 1]]


def test_nothing_to_apply(box):
    assert box.store().apply([]) == FRESH


def test_a_late_event_is_stored_not_counted(box):
    late = row("late", occurred_at=NOW - WEEK_MS - 1)
    box.store().apply([late])
    assert box.totals() == {"late": 1}
    assert box.timeline("u1", late[SHARD]) == [("late", NOW - WEEK_MS - 1)]


def test_money_beyond_what_a_double_holds(box):
    """Lua's numbers are doubles: past 2^53 they would lose cents."""
    store, amount = box.store(), 999_999_999_999
    for start in range(0, 10_000, 1000):
        rows = [[*paid(f"e{i}", amount)[:-1], i] for i in range(start, start + 1000)]
        assert store.apply(rows) == FRESH
    totals = box.totals()
    assert totals["gmv"] == totals["c:c1"] == 10_000 * amount > 2**53


def paid(event_id, amount):
    return row(event_id, type="pay", order_id="o", amount=amount, category_id="c1")


# -- again


def test_the_same_record_again_is_a_replay(box):
    rows = [row(f"e{i}", offset=i) for i in range(5)]
    box.store().apply(rows)
    before = box.state()
    assert box.store().apply(rows) == FRESH._replace(replays=frozenset(range(5)))
    assert box.state() == before


def test_the_same_event_in_another_record_is_a_duplicate(box):
    rows = [row(f"e{i}", offset=i) for i in range(3)]
    box.store().apply(rows)
    before = box.state()
    again = [moved(rows[0], 100), moved(rows[1], 1, topic_digest("made anew")), rows[2]]
    assert box.store().apply(again) == FRESH._replace(duplicates=frozenset({0, 1}), replays=frozenset({2}))
    assert box.state() == before


def test_another_event_under_the_same_id_is_a_conflict(box):
    box.store().apply([row("e", offset=0)])
    before = box.state()
    other = row("e", offset=1, item_id="other")
    assert box.store().apply([other]) == FRESH._replace(conflicts=frozenset({0}))
    assert box.store().apply([other]) == FRESH._replace(conflicts=frozenset({0}))
    assert box.state() == before


def test_within_one_slice_the_first_wins(box):
    a = row("a", offset=0)
    rows = [a, row("b", offset=1), moved(a, 2), row("a", offset=3, item_id="x"), a]
    found = box.store().apply(rows)
    assert found == Applied(frozenset({2}), frozenset({3}), frozenset({4}), {})
    assert box.totals()["n:view"] == 2
    assert box.timeline("u1", a[SHARD]) == [("a", NOW - 1000), ("b", NOW - 1000)]


def test_what_is_left_out_changes_nothing_of_the_rest(box):
    """Sums are made for a set of events: where one is not fresh they are made anew for the others."""
    old = row("old", **{k: v for k, v in pay("old", 100).items() if k != "event_id"})
    box.store().apply([old])
    new = row("new", offset=1, **{k: v for k, v in pay("new", 7).items() if k != "event_id"})
    assert box.store().apply([moved(old, 5), new]).duplicates == {0}
    assert box.totals()["gmv"] == 107
    assert box.buckets() == expected_buckets([old, new])


# -- the window


WINDOW = 3600


def windowed(server, hashes):
    return Box(server.url, **{"claims.window_h": WINDOW / 3600, "claims.buckets": hashes})


@pytest.mark.parametrize("made_at", [0, 1, WINDOW // 2, WINDOW - 1])
def test_a_claim_is_remembered_for_the_window_and_not_for_ever(server, hashes, made_at):
    box = windowed(server, hashes)
    base = 1000 * WINDOW
    r = row("e")
    box.store(base + made_at).apply([r])
    for later in (0, 1, WINDOW // 2, WINDOW):
        assert box.store(base + made_at + later).apply([moved(r, 9)]).duplicates == {0}, later
    assert box.store(base + made_at + 2 * WINDOW).apply([moved(r, 9)]) == FRESH


@pytest.mark.parametrize("earlier_release", [False, True])
@pytest.mark.parametrize(("before", "after"), [(256, 4096), (4096, 256), (1, 2), (64, 64)])
def test_the_number_of_hashes_may_be_changed_at_any_time(server, before, after, earlier_release):
    window = {"claims.window_h": WINDOW / 3600}
    box = Box(server.url, **window, **{"claims.buckets": before})
    base = 1000 * WINDOW
    rows = [row(f"e{i}", offset=i) for i in range(300)]
    again = [moved(r, 1000 + i) for i, r in enumerate(rows)]
    box.store(base).apply(rows)
    if earlier_release:  # its mark went only as far as the last hash in use
        (mark,) = [k for k in box.state() if k.endswith(f"}}:c:{base // WINDOW}".encode())]
        value = box.client.get(mark)
        box.client.set(mark, value[: value.rindex(b"1") + 1], keepttl=True)
    box = Box(server.url, box.name, **window, **{"claims.buckets": after})
    assert len(box.store(base + WINDOW - 1).apply(again).duplicates) == 300
    assert len(box.store(base + WINDOW).apply(again).duplicates) == 300, "in the generation before"
    more = [row(f"f{i}", offset=i) for i in range(300)]
    assert box.store(base + WINDOW).apply(more) == FRESH
    assert len(box.store(base + 2 * WINDOW - 1).apply([moved(r, 5000) for r in more]).duplicates) == 300
    mark = f"}}:c:{base // WINDOW + 1}".encode()
    assert {len(v) for k, v in box.state().items() if k.endswith(mark)} == {after}


def test_claims_expire_by_themselves(server, hashes):
    box = windowed(server, hashes)
    base = 1000 * WINDOW
    box.store(base + 10).apply([row("e")])
    found = [k for k in box.state() if b"}:c:" in k]
    assert len(found) == 2, "the generation's mark and one hash"
    for key in found:
        assert 2 * WINDOW - 10 - 5 <= box.client.ttl(key) <= 2 * WINDOW - 10 + 1, key


def test_without_a_given_time_it_is_the_servers(server, hashes):
    box = windowed(server, hashes)
    box.store().apply([row("e")])
    generation = box.client.time()[0] // WINDOW
    marks = {k.decode().split("}:c:")[1].split(":")[0] for k in box.state() if b"}:c:" in k}
    assert marks <= {str(generation), str(generation - 1)}


def test_a_server_whose_clock_is_behind_still_knows_the_claims(server, hashes):
    """A failover at the edge of two generations: the new server's clock may still be in the old one."""
    box = windowed(server, hashes)
    base = 1000 * WINDOW
    r = row("e")
    box.store(base).apply([r])
    assert box.store(base - 1).apply([r]).replays == {0}
    assert box.totals()["n:view"] == 1


def test_a_slice_of_thousands_of_one_shard(box):
    """More claims than the script hands to Redis at once; with a replay, a duplicate and a conflict beyond the first thousand."""
    rows = [row(f"e{i}", offset=i) for i in range(2500)]
    store = box.store()
    found = store.apply([*rows, rows[1200], moved(rows[5], 9000), row("e2400", offset=9001, item_id="x")])
    assert found == Applied(frozenset({2501}), frozenset({2502}), frozenset({2500}), {})
    assert store.apply(rows).replays == set(range(2500))
    assert store.apply([*rows[2000:], row("new", offset=3000)]).replays == set(range(500))
    assert box.totals()["n:view"] == 2501


def with_hashes(server, name, hashes, day=1000):
    given = {"redis.url": server.url, "redis.namespace": name, "claims.buckets": hashes}
    return RedisStore(Settings(given), now_s=DAY * day)


@pytest.mark.parametrize("fewer", [1, 16])
def test_fewer_hashes_than_before_still_find_all_that_is_claimed(server, fewer):
    """The setting is lowered and the topology submitted anew, in the middle of a window."""
    box = Box(server.url)
    rows = [row(f"e{i}", offset=i) for i in range(60)]
    many, few = with_hashes(server, box.name, 64), with_hashes(server, box.name, fewer)
    many.apply(rows[:40])
    assert few.apply(rows).replays == set(range(40))
    assert many.apply(rows).replays == set(range(60)), "the generation goes on as it began"
    day_after = with_hashes(server, box.name, fewer, day=1001)
    assert day_after.apply([*rows, row("new", offset=99)]).replays == set(range(60))
    assert day_after.apply([moved(rows[0], 100), row("new", offset=99)]) == FRESH._replace(
        duplicates=frozenset({0}), replays=frozenset({1})
    )
    begun_anew = box.client.scan_iter(f"tide:{box.name}:*c:1001:*")
    assert len(list(begun_anew)) == 1
    assert box.totals()["n:view"] == 61


@pytest.mark.parametrize(("hashes", "most"), [(256, 64), (1, 112)])
def test_a_claim_takes_few_bytes(server, hashes, most):
    """Many hashes are listpacks. One is a table: dearer, but read and written in a few calls; docs/settings.md says so."""
    box = Box(server.url, **{"claims.buckets": hashes})
    count = 20_000
    # By Redis's own clock, midnight would begin other hashes in the middle.
    store = box.store(now_s=1000 * DAY)
    for start in range(0, count, 1000):
        store.apply([row(f"event-{start + i}", offset=start + i) for i in range(1000)])
    found = list(box.client.scan_iter(f"tide:{box.name}:*c:*:*", count=1000))
    pipe = box.client.pipeline(transaction=False)
    for key in found:
        pipe.memory_usage(key, samples=0)
        pipe.hlen(key)
    answers = pipe.execute()
    assert len(found) == hashes
    assert sum(answers[1::2]) == count
    assert sum(answers[::2]) / count <= most


def test_claims_are_those_of_earlier_releases():
    """Redis keeps them for a day: others would let everything in once more after an upgrade."""
    edge = row("漢", offset=2**48 - 1, partition=2**16 - 1)
    assert claims.packed([edge]) == (
        blake2b("漢".encode(), digest_size=12).digest()
        + (edge[FINGERPRINT] + edge[TOPIC_ID]).encode()
        + (2**64 - 1).to_bytes(8, "big")
    )


def test_claims_are_small_and_tell_records_apart():
    r = row("e", offset=5, partition=3)
    assert len(claims.field("e")) == 12
    assert len(claims.claim(r)) == 22
    assert claims.packed([r, r]) == (claims.field("e") + claims.claim(r)) * 2
    others = [
        moved(r, 6),
        moved(r, 5, topic_digest("x")),
        [*r[:-2], 4, 5],
        row("e", offset=5, partition=3, item_id="i"),
    ]
    assert len({claims.claim(o) for o in [r, *others]}) == 5
    edge = [*r[:-2], 2**16 - 1, 2**48 - 1]
    assert len(claims.claim(edge)) == 22


# -- any slicing, any replays, any order


class Model:
    """What Redis has to show: the first record of each id counts, once. An id is one within its shard."""

    def __init__(self):
        self.by_id = {}

    def apply(self, rows):
        duplicates, conflicts, replays = set(), set(), set()
        for i, r in enumerate(rows):
            key = (r[SHARD], r[EVENT_ID])
            if key not in self.by_id:
                self.by_id[key] = r
                continue
            winner = self.by_id[key]
            if claims.claim(winner) == claims.claim(r):
                replays.add(i)
            elif winner[FINGERPRINT] == r[FINGERPRINT]:
                duplicates.add(i)
            else:
                conflicts.add(i)
        return Applied(frozenset(duplicates), frozenset(conflicts), frozenset(replays), {})

    def holds(self, box, length):
        rows = list(self.by_id.values())
        assert box.buckets() == expected_buckets(rows)
        lines = {}
        for r in rows:
            lines.setdefault((r[USER_ID], r[SHARD]), []).append(r)
        for (user, shard), its in lines.items():
            scored = aggregate.effects(its, WEEK_MS).timelines[user]
            pairs = sorted(
                (int(score), member) for score, member in zip(scored[::2], scored[1::2], strict=True)
            )
            newest = [(rows_of([m])[0][EVENT_ID], score) for score, m in pairs][-length:]
            assert box.timeline(user, shard) == newest


def traffic(seed, count=120):
    """Records of one partition: pays and views of few users, some late, some doubled, some with a stolen id."""
    rng = random.Random(seed)
    records = []
    for offset in range(count):
        occurred = NOW - rng.choice([rng.randrange(5000), rng.randrange(100_000), 2 * WEEK_MS])
        user = f"u{rng.randrange(4)}"
        dice = rng.random()
        if records and dice < 0.1:
            records.append(moved(rng.choice(records), offset))
        elif records and dice < 0.15:
            stolen = rng.choice(records)[EVENT_ID]
            records.append(row(stolen, offset=offset, user_id=user, item_id="stolen"))
        elif dice < 0.5:
            amount = rng.randrange(10**12)
            records.append(
                row(
                    f"e{offset}",
                    offset=offset,
                    type="pay",
                    user_id=user,
                    order_id="o",
                    amount=amount,
                    occurred_at=occurred,
                    category_id=f"c{rng.randrange(3)}",
                )
            )
        else:
            records.append(
                row(f"e{offset}", offset=offset, user_id=user, occurred_at=occurred, gender="male")
            )
    return rng, records


@pytest.mark.parametrize("seed", range(8))
def test_any_slicing_and_any_replays_come_to_the_same(server, hashes, seed):
    box = Box(server.url, **{"timeline.length": 7, "claims.buckets": hashes})
    rng, records = traffic(seed)
    model = Model()
    stores = [box.store(), box.store()]
    done = 0
    while done < len(records):
        start = rng.randrange(max(0, done - 30), done + 1)  # back to some commit, or on
        stop = min(len(records), start + rng.randrange(1, 25))
        part = records[start:stop]
        if rng.random() < 0.2:
            part = rng.sample(part, len(part))
        assert rng.choice(stores).apply(part) == model.apply(part)
        done = max(done, stop)
    model.holds(box, 7)
    before = box.state()
    everything = rng.sample(records, len(records))
    stores[0].apply(everything)
    assert box.state() == before


def test_two_workers_at_the_same_time(box):
    """The same rows from two processes, as after a rebalance: each event once."""
    rows = [row(f"e{i}", offset=i, user_id=f"u{i % 5}") for i in range(300)]
    slices = [[rows[i : i + 30] for i in range(0, 300, 30)], [rows[i : i + 70] for i in range(0, 300, 70)]]
    failed = []

    def work(parts):
        store = box.store()
        for part in parts:
            found = store.apply(part)
            if found.duplicates or found.conflicts or found.failed:
                failed.append(found)

    threads = [threading.Thread(target=work, args=(parts,)) for parts in slices]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert failed == []
    assert box.totals()["n:view"] == 300


# -- what goes wrong


def test_the_script_cache_is_flushed(box):
    store = box.store()
    store.apply([row("a")])
    box.client.script_flush()
    assert (
        store.apply([row("b", offset=1), *[row(f"x{i}", user_id=f"u{i}", offset=i + 2) for i in range(5)]])
        == FRESH
    )
    assert box.totals()["n:view"] == 7


def test_a_full_server_changes_nothing_and_is_not_the_events_fault(box):
    store = box.store()
    store.apply([row("a")])
    before = box.state()
    box.client.config_set("maxmemory", "1")
    try:
        with pytest.raises(StoreUnavailable) as caught:
            store.apply([row("b", offset=1)])
        assert caught.value.retriable
    finally:
        box.client.config_set("maxmemory", "0")
    assert box.state() == before
    assert store.apply([row("b", offset=1)]) == FRESH


def test_one_shard_that_fails_leaves_the_others_alone(box):
    rows = [row(f"e{i}", user_id=f"u{i}", offset=i) for i in range(4)]
    assert len({r[SHARD] for r in rows}) == 4
    box.client.set(keys.shard_prefix(box.name, rows[2][SHARD]) + f"t:{rows[2][USER_ID]}", "no sorted set")
    found = box.store().apply(rows)
    assert found.failed.keys() == {2}
    assert isinstance(found.failed[2], StoreRefused)
    for i in (0, 1, 3):
        assert box.timeline(f"u{i}", rows[i][SHARD])


def test_a_server_too_old_for_the_script_is_not_asked_to_run_it(box, monkeypatch):
    store = box.store()
    monkeypatch.setattr(store._client, "info", lambda _section: {"redis_version": "6.2.16"})
    with pytest.raises(StoreUnavailable, match=r"6\.2\.16 is too old"):
        store.apply([row("a")])
    assert box.state() == {}


def test_a_namespace_may_hold_what_a_format_does(server):
    box = Box(server.url)
    store = RedisStore(Settings({"redis.url": server.url, "redis.namespace": f"50%d%%s%-{box.name}"}))
    r = row("e1")
    assert store.apply([r]) == FRESH
    assert store.apply([r]).replays == {0}
    assert store.apply([moved(r, 99)]).duplicates == {0}
    assert box.state() == {}


def test_namespaces_do_not_meet(server):
    one, two = Box(server.url), Box(server.url)
    one.store().apply([row("e")])
    assert two.store().apply([row("e")]) == FRESH
    assert one.totals() == two.totals()


# -- a server of one's own, that dies


@pytest.fixture
def mortal(tmp_path):
    with running(tmp_path) as found:
        yield found


def answers(store):
    try:
        store.ping()
    except StoreUnavailable:
        return False
    return True


def test_a_server_restarts_between_calls(mortal):
    box = Box(mortal.url)
    store = box.store()
    r = row("a")
    store.apply([r])
    first = run_id(box.client)
    box.client.config_set("appendfsync", "always")
    store.apply([row("b", offset=1)])
    mortal.stop()
    with pytest.raises(StoreUnavailable):
        store.apply([row("c", offset=2)])
    mortal.start()
    assert run_id(box.client) != first
    assert store.apply([moved(r, 9), row("c", offset=2)]).duplicates == {0}
    assert box.totals()["n:view"] == 3


def test_killed_at_any_moment_reading_again_restores_all(mortal, hashes):
    """Claims and effects are lost together, so what is read again from the last commit is just what is missing."""
    box = Box(mortal.url, **{"timeline.length": 7, "claims.buckets": hashes})
    _, records = traffic(99, 400)
    store, model = box.store(), Model()
    for r in records:
        model.apply([r])
    for start in range(0, 400, 20):
        store.apply(records[start : start + 20])
        if start in (100, 240, 380):
            mortal.kill()
            mortal.start()
    for start in range(0, 400, 33):
        store.apply(records[start : start + 33])
    model.holds(box, 7)


def test_all_is_lost_and_read_again(mortal):
    box = Box(mortal.url, **{"timeline.length": 7})
    _, records = traffic(5)
    store = box.store()
    store.apply(records)
    before = box.state(but_claims=True)
    box.client.flushall()
    for start in range(0, len(records), 11):
        store.apply(records[start : start + 11])
    assert box.state(but_claims=True) == before


def test_a_server_that_hangs_is_away_after_the_time_limit(mortal):
    calm = Box(mortal.url)
    calm.store().apply([row("a")])
    store = Box(mortal.url, calm.name, **{"redis.timeout_s": 0.1}).store()
    until(lambda: answers(store))  # a machine that stalls may take that long as well
    mortal.pause()
    try:
        with pytest.raises(StoreUnavailable):
            store.apply([row("b", offset=1)])
        with pytest.raises(StoreUnavailable):
            store.ping()
    finally:
        mortal.resume()
    # The call that timed out may have been served after all: the same record again is harmless.
    assert not calm.store().apply([row("b", offset=1)]).failed
    assert calm.totals()["n:view"] == 2
    until(lambda: answers(store))


def test_nobody_there(tmp_path):
    box = Box(f"unix://{tmp_path}/nobody.sock")
    with pytest.raises(StoreUnavailable, match="redis"):
        box.store().apply([row("a")])
    with pytest.raises(redis.RedisError):
        box.client.ping()
