"""Who may do what: keys, origins, limits and access lines, through the whole application with the log scripted."""

import asyncio
import json
import logging

import httpx
import pytest
from scripted_log import ScriptedLog

from clicktide import topics
from clicktide.settings import Settings
from services.access import keyfile
from services.access.keyfile import Key, Keys, Secret
from services.application import ROLES, Services

EVENT = {"event_id": "e1", "type": "view", "user_id": "secret-user", "occurred_at": 1000}
ORIGIN = "https://shop.example"


def event(i, user="u"):
    return {**EVENT, "event_id": f"e{i}", "user_id": user}


async def until(true, seconds=30.0):
    """Other threads have no event to await."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not true():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.001)


class House:
    """Services with a key of each scope, and some with limits."""

    def __init__(self, path):
        self.path, self.tokens, self.keys = path, {}, []
        for scope in ("write", "read", "admin"):
            self.add(scope, scope)
        self.add("page", "write", origins=(ORIGIN,))
        self.add("slow", "write", rate=1.0, burst=3.0)
        self.save()

    def add(self, name, scope, **more):
        id_ = f"{name:x<8}"
        token = self.tokens[name] = keyfile.new_token(scope, id_)
        self.keys.append(Key(id_, name, scope, 0, (Secret(keyfile.digest(token), 0),), **more))

    def save(self):
        keyfile.write(self.path, Keys(keys=tuple(self.keys)))

    def bearer(self, name):
        return {"authorization": f"Bearer {self.tokens[name]}"}

    def ask(self, work, log=None, *, keys=True, roles=ROLES, **settings):
        log = log or ScriptedLog()
        given = {
            "log.path": "unused",
            "sql.dsns": "sqlite:///nowhere.sqlite",
            "redis.url": "redis://127.0.0.1:1",
            "http.linger_ms": 0,
            "http.store_timeout_s": 0.2,
            **({"keys.file": str(self.path)} if keys else {}),
            **{k.replace("__", "."): v for k, v in settings.items()},
        }

        async def main():
            services = Services(Settings(given), roles, log)
            # The limits' clocks stand: a machine that stalls would fill the buckets between two requests.
            services.guard._reads._clock = services.upload._quota._clock = services.upload._clock = lambda: (
                0.0
            )
            services.batcher.start()
            transport = httpx.ASGITransport(app=services.app)
            try:
                async with httpx.AsyncClient(transport=transport, base_url="http://tide") as client:
                    return await work(client, services)
            finally:
                log.gate.set()
                await services.stop()

        return asyncio.run(main())

    def post(self, headers=None, url="/v1/events", body=EVENT, **settings):
        return self.ask(lambda client, _: client.post(url, json=body, headers=headers or {}), **settings)


@pytest.fixture
def house(tmp_path):
    return House(tmp_path / "keys.json")


# Keys


def test_without_a_keys_file_no_key_is_needed(house):
    assert house.post(keys=False).status_code == 202


def test_with_one_a_write_needs_a_write_key_by_any_of_three_ways(house):
    refused = house.post()
    assert (refused.status_code, refused.json()["code"]) == (401, "key_missing")
    assert refused.headers["www-authenticate"] == 'Bearer realm="clicktide"'
    for name in ("write", "admin"):
        assert house.post(house.bearer(name)).status_code == 202
        assert house.post({"x-tide-key": house.tokens[name]}).status_code == 202
    assert house.post(url=f"/v1/events?key={house.tokens['write']}").status_code == 202


def test_a_key_in_the_address_is_for_writing_only(house):
    for name in ("read", "admin"):
        answer = house.post(url=f"/v1/events?key={house.tokens[name]}")
        assert (answer.status_code, answer.json()["code"]) == (403, "key_in_address")
    path = f"/v1/metrics/gmv?key={house.tokens['read']}"
    assert house.ask(lambda client, _: client.get(path)).status_code == 401


def test_another_scope_is_403_and_a_wrong_token_401(house):
    answer = house.post(house.bearer("read"))
    assert (answer.status_code, answer.json()["code"]) == (403, "key_scope")
    assert 'error="insufficient_scope", scope="write"' in answer.headers["www-authenticate"]
    answer = house.post({"authorization": "Bearer " + keyfile.new_token("write", "writexxx")})
    assert (answer.status_code, answer.json()["code"]) == (401, "key_unknown")
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_nothing_of_a_refused_upload_is_written(house):
    log = ScriptedLog()
    for headers in ({}, house.bearer("read"), {"authorization": "Basic eDp5"}):
        assert house.post(headers, log=log).status_code in {401, 403}
    assert log.sent == []


READ_PATHS = [
    "/v1/metrics/gmv",
    "/v1/users/u/timeline",
    "/v1/orders/o",
    "/v1/events/e",
    "/v1/status",
    "/v1/live/snapshot",
    "/metrics",
]
OPEN_PATHS = ["/", "/docs", "/openapi.json", "/health/live", "/health/ready"]


def test_reading_needs_a_read_key_and_pages_and_health_do_not(house):
    async def work(client, _):
        return {
            (path, name): (await client.get(path, headers=house.bearer(name) if name else {})).status_code
            for path in READ_PATHS + OPEN_PATHS
            for name in ("", "write", "read", "admin")
        }

    found = house.ask(work)
    for path in READ_PATHS:
        assert (found[path, ""], found[path, "write"]) == (401, 403)
        assert found[path, "read"] not in {401, 403}
        assert found[path, "admin"] not in {401, 403}
    for path in OPEN_PATHS:
        assert found[path, ""] not in {401, 403}


def test_metrics_may_be_opened(house):
    assert house.ask(lambda c, _: c.get("/metrics"), keys__open_metrics=True).status_code == 200


def test_every_operation_says_its_scope(house):
    async def work(_, services):
        return {o.path for o in services.operations if not o.scope}

    assert house.ask(work) <= {*OPEN_PATHS, "/tide.js"}


def test_a_page_key_serves_its_origin_only(house):
    good = {**house.bearer("page"), "origin": ORIGIN}
    assert house.post(good).status_code == 202
    for origin in (
        {"origin": "https://evil.example"},
        {"origin": ORIGIN + ".evil.example"},
        {"origin": "null"},
        {},
    ):
        answer = house.post({**house.bearer("page"), **origin})
        assert (answer.status_code, answer.json()["code"]) == (403, "key_origin")


def test_pages_can_read_why_they_were_refused(house):
    answer = house.post({"origin": ORIGIN})
    assert answer.status_code == 401
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    preflight = house.ask(
        lambda c, _: c.options(
            "/v1/events", headers={"origin": ORIGIN, "access-control-request-method": "POST"}
        )
    )
    assert preflight.status_code == 204
    assert {"authorization", "x-tide-key"} <= set(
        preflight.headers["access-control-allow-headers"].split(", ")
    )


def test_readiness_tells_strangers_no_names_of_brokers(house):
    async def work(client, services):
        services.batcher.log_up, services.batcher.last_error = False, "kafka-7.internal:9092 is away"
        return (await client.get("/health/ready")).json()["detail"]

    assert "kafka-7" not in house.ask(work)
    assert "kafka-7" in house.ask(work, keys=False)


# Limits


def test_a_key_past_its_limit_gets_429_and_headers_while_others_go_on(house):
    async def work(client, _):
        slow, other = house.bearer("slow"), house.bearer("write")
        first = await client.post("/v1/events", json=[event(i) for i in range(3)], headers=slow)
        second = await client.post("/v1/events", json=event(9), headers=slow)
        return first, second, await client.post("/v1/events", json=event(10), headers=other)

    first, second, third = house.ask(work)
    assert first.status_code == 202
    assert first.headers["ratelimit-policy"] == '"key";q=3;w=3;qu="events"'
    assert first.headers["ratelimit"].startswith('"key";r=0;t=')
    assert (second.status_code, second.json()["code"]) == (429, "rate_limited")
    assert second.headers["retry-after"] == "1"
    assert "key" in second.json()["detail"]
    assert second.headers["ratelimit"].startswith('"key";r=0')
    assert third.status_code == 202
    assert "ratelimit" not in third.headers


def test_a_key_past_its_limit_is_refused_before_its_body_is_read(house):
    read = []

    async def work(client, _):
        slow = {**house.bearer("slow"), "content-type": "application/json"}
        await client.post("/v1/events", json=[event(i) for i in range(5)], headers=slow)

        async def body():
            read.append(1)
            yield b"{}"

        return await client.post("/v1/events", content=body(), headers=slow)

    assert house.ask(work).status_code == 429
    assert not read


def test_the_limit_of_all_counts_every_key(house):
    async def work(client, _):
        return [
            (
                await client.post("/v1/events", json=[event(i) for i in range(4)], headers=house.bearer(k))
            ).status_code
            for k in ("write", "admin", "write")
        ]

    assert house.ask(work, http__max_rate=8) == [202, 202, 429]


def test_reads_have_limits_of_their_own(house):
    async def work(client, _):
        answers = [await client.get("/v1/metrics/gmv", headers=house.bearer("read")) for _ in range(3)]
        return (
            [a.status_code for a in answers],
            answers[0].headers,
            await client.get("/v1/metrics/gmv", headers=house.bearer("admin")),
        )

    statuses, headers, admin = house.ask(work, keys__read_rate=2)
    assert statuses[2] == 429
    assert 429 not in statuses[:2]
    assert headers["ratelimit-policy"] == '"key";q=2;w=1;qu="requests"'
    assert admin.status_code != 429


def test_a_hot_user_is_limited_item_by_item_and_others_pass(house):
    log = ScriptedLog()
    batch = [event(i, "hot") for i in range(5)] + [event(i, f"u{i}") for i in range(5, 8)]

    async def work(client, _):
        return await client.post("/v1/events", json=batch), await client.post(
            "/v1/events", json=event(9, "hot")
        )

    some, none = house.ask(work, log, keys=False, http__user_rate=1, http__user_burst=2)
    assert (some.status_code, some.json()["accepted"], some.headers["retry-after"]) == (207, 5, "1")
    codes = [r["code"] for r in some.json()["results"]]
    assert codes == [None, None, *["user_rate_limited"] * 3, None, None, None]
    assert (none.status_code, none.json()["code"]) == (429, "user_rate_limited")
    assert none.headers["retry-after"] == "1"
    assert len(log.records()) == 5


def test_one_key_cannot_fill_the_queue(house):
    log = ScriptedLog()

    async def work(client, services):
        await client.post("/v1/events", json=event(0), headers=house.bearer("write"))
        log.gate.clear()
        log.entered.clear()
        tasks = [asyncio.create_task(client.post("/v1/events", json=event(1), headers=house.bearer("write")))]
        await asyncio.to_thread(log.entered.wait, 30)
        batch = [event(i) for i in range(4)]
        tasks.append(
            asyncio.create_task(client.post("/v1/events", json=batch, headers=house.bearer("write")))
        )
        value = services.telemetry.registry.get_sample_value
        await until(lambda: value("clicktide_collector_queued_events") == 4)
        hot = await client.post("/v1/events", json=event(7), headers=house.bearer("write"))
        tasks.append(
            asyncio.create_task(client.post("/v1/events", json=event(8), headers=house.bearer("admin")))
        )
        await until(lambda: value("clicktide_collector_queued_events") == 5)
        log.gate.set()
        return hot, [(await t).status_code for t in tasks]

    hot, others = house.ask(work, log, http__queue_events=10, keys__share=0.5)
    assert (hot.status_code, hot.json()["code"]) == (429, "overloaded")
    assert "of this key" in hot.json()["detail"]
    assert others == [202, 202, 202]


def test_memory_is_refused_before_it_is_used(house):
    """Bodies that are on their way hold room; past it uploads are 429 at once, and it comes back when they end."""
    held = asyncio.Event()

    async def work(client, services):
        started = asyncio.Event()

        async def slow():
            started.set()
            yield b"["
            await held.wait()
            yield b"1]"

        headers = {"content-type": "application/json"}
        first = asyncio.create_task(client.post("/v1/events", content=slow(), headers=headers))
        await started.wait()
        await until(lambda: services.upload.room.used > 0)
        refused = await client.post("/v1/events", content=b" " * 600_000, headers=headers)
        held.set()
        await first
        return refused, services.upload.room.used, await client.post("/v1/events", json=EVENT)

    refused, used, after = house.ask(work, keys=False, http__max_uploading_mb=1)
    assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
    assert used == 0
    assert after.status_code == 202


# Request ids and access lines


def test_the_request_id_goes_into_the_events_headers(house):
    log = ScriptedLog()
    answer = house.post({**house.bearer("write"), "x-request-id": "abc-1"}, log=log)
    assert answer.headers["x-request-id"] == "abc-1"
    assert log.records()[0].headers == ((topics.REQUEST_ID, b"abc-1"),)
    log = ScriptedLog()
    made = house.post({**house.bearer("write"), "x-request-id": "x" * 65}, log=log).headers["x-request-id"]
    assert len(made) == 16
    assert log.records()[0].headers == ((topics.REQUEST_ID, made.encode()),)


def test_an_access_line_has_the_key_and_no_token_path_query_or_user(house, caplog):
    caplog.set_level(logging.INFO, "clicktide.access")

    async def work(client, _):
        await client.post(
            f"/v1/events?key={house.tokens['write']}", json=EVENT, headers={"x-request-id": "r-1"}
        )
        await client.get("/v1/users/secret-user/timeline?type=pay", headers=house.bearer("read"))
        await client.get("/v1/status", headers={"authorization": "Bearer nonsense"})
        await client.get("/secret/path")

    house.ask(work)
    text = "\n".join(r.getMessage() for r in caplog.records if r.name == "clicktide.access")
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(x["route"], x["key"]) for x in lines] == [
        ("/v1/events", "writexxx"),
        ("/v1/users/{user_id}/timeline", "readxxxx"),
        ("/v1/status", None),
        ("none", None),
    ]
    post = lines[0]
    assert (post["method"], post["status"], post["request_id"]) == ("POST", 202, "r-1")
    assert post["bytes_in"] == len(json.dumps(EVENT, separators=(",", ":")))
    assert post["bytes_out"] == len('{"accepted":1}')
    assert "client" not in post
    for secret in (*house.tokens.values(), "secret", "pay", "nonsense"):
        assert secret not in text


@pytest.mark.parametrize(
    ("proxies", "expected"),
    [
        ("", "127.0.0.1"),
        ("127.0.0.1", "203.0.113.7"),
        ("127.0.0.0/8", "203.0.113.7"),
        ("10.0.0.0/8", "127.0.0.1"),
    ],
)
def test_forwarded_addresses_are_believed_of_trusted_proxies_only(house, caplog, proxies, expected):
    caplog.set_level(logging.INFO, "clicktide.access")
    headers = {"x-forwarded-for": "198.51.100.1, 203.0.113.7", "x-forwarded-proto": "https"}
    house.post({**house.bearer("write"), **headers}, http__trusted_proxies=proxies, http__log_addresses=True)
    (line,) = [json.loads(r.getMessage()) for r in caplog.records if r.name == "clicktide.access"]
    assert line["client"] == expected
