"""A worker that dies after any one of its calls to Redis: the slice comes again, and its effects are there once.

What a kill -9 between claiming and applying would show, if these were two steps: a chaos run meets that moment by chance.
"""

from __future__ import annotations

import pytest
from redis_server import running
from unit.core.making import row

from clicktide.redisstore.client import connect
from clicktide.redisstore.store import RedisStore
from clicktide.settings import Settings

pytestmark = pytest.mark.embedded


class Died(BaseException):
    """The process is gone: nothing in the store may catch it."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(tmp_path_factory.mktemp("redis")) as found:
        yield found


class Namespace:
    def __init__(self, url: str, name: str) -> None:
        self.name = name
        self.settings = Settings({"redis.url": url, "redis.namespace": name, "redis.timeout_s": 5})
        self.client = connect(self.settings)

    def store(self, die_after: int | None = None) -> RedisStore:
        store = RedisStore(self.settings, now_s=0)
        if die_after is not None:
            run, left = store._apply.run, [die_after]

            def dying(calls):
                answers = run(calls)
                left[0] -= 1
                if left[0] == 0:
                    raise Died
                return answers

            store._apply.run = dying
        return store

    def counters(self) -> dict[bytes, dict[bytes, bytes]]:
        start = f"tide:{self.name}:"
        found = self.client.scan_iter(start + "{*}:b:*", count=1000)
        return {key[len(start) :]: self.client.hgetall(key) for key in found}


SLICE = [
    row("old", offset=7),  # a duplicate of what is there: makes the store sum anew and ask again
    *(
        row(f"p{i}", offset=10 + i, type="pay", order_id=f"o{i}", amount=100 + i, user_id=f"u{i % 5}")
        for i in range(20)
    ),
]


@pytest.mark.parametrize("calls", [1, 2, 3, 4])
def test_a_death_after_any_call_changes_nothing(server, calls):
    undisturbed, disturbed = (Namespace(server.url, f"{name}{calls}") for name in ("calm", "dying"))
    for space in (undisturbed, disturbed):
        space.store().apply([row("old", offset=1)])
    undisturbed.store().apply(SLICE)
    try:
        disturbed.store(die_after=calls).apply(SLICE)
    except Died:
        disturbed.store().apply(SLICE)
    assert disturbed.counters() == undisturbed.counters()
    assert undisturbed.counters()
