"""`POST /v1/events` through the whole application, the log scripted."""

import asyncio
import gzip
import json

import httpx
import pytest
from scripted_log import ScriptedLog

from clicktide.errors import LogUnavailable, RecordTooLarge, UnknownTopic
from clicktide.settings import Settings
from services.application import Services

GOOD = {"event_id": "e1", "type": "view", "user_id": 7, "occurred_at": 1000}


def event(i, **more):
    return {**GOOD, "event_id": f"e{i}", **more}


def with_collector(log, work, **settings):
    """Runs `work(client, services)` against a collector that has started."""

    async def main():
        given = {
            "http.ack_timeout_s": 30.0,
            "http.linger_ms": 0,
            **{f"http.{k}": v for k, v in settings.items()},
        }
        services = Services(Settings({"log.path": "unused", **given}), ["collector"], log)
        services.batcher.start()
        transport = httpx.ASGITransport(app=services.app, raise_app_exceptions=True)
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://tide") as client:
                return await work(client, services)
        finally:
            log.gate.set()
            await services.stop()

    return asyncio.run(main())


async def until(true, seconds=30.0):
    """Other threads have no event to await."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not true():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.001)


def queued(services):
    return services.telemetry.registry.get_sample_value("clicktide_collector_queued_events")


def post(body, log=None, headers=None, **settings):
    log = log or ScriptedLog()

    async def work(client, _):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await client.post(
            "/v1/events", content=content, headers={"content-type": "application/json", **(headers or {})}
        )

    return with_collector(log, work, **settings), log


def test_one_event_is_on_the_log_when_it_is_answered():
    answer, log = post(GOOD)
    assert (answer.status_code, answer.json()) == (202, {"accepted": 1})
    (record,) = log.records()
    assert (record.topic, record.key) == ("tide.events", b"7")
    value = json.loads(record.value)
    assert value["event_id"] == "e1"
    assert value["received_at"] > 1_600_000_000_000


def test_an_array_goes_out_in_one_write_in_its_order():
    answer, log = post([event(i) for i in range(10)])
    assert answer.json() == {"accepted": 10}
    assert len(log.sent) == 1
    assert [json.loads(r.value)["event_id"] for r in log.records()] == [f"e{i}" for i in range(10)]


def test_compressed_lines():
    lines = b"\n".join(json.dumps(event(i)).encode() for i in range(3))
    headers = {"content-type": "application/x-ndjson", "content-encoding": "gzip"}
    answer, log = post(gzip.compress(lines), headers=headers)
    assert answer.json() == {"accepted": 3}
    assert len(log.records()) == 3


def test_some_bad_is_207_with_one_result_an_event_and_only_the_good_are_written():
    answer, log = post([event(1), {"event_id": "x", "type": "pay"}, 5, event(2)])
    assert answer.status_code == 207
    body = answer.json()
    assert (body["accepted"], body["rejected"]) == (2, 2)
    assert [r["status"] for r in body["results"]] == ["accepted", "rejected", "rejected", "accepted"]
    assert [r["event_id"] for r in body["results"]] == ["e1", "x", None, "e2"]
    assert body["results"][1]["code"] == "missing_field"
    assert [r["index"] for r in body["results"]] == [0, 1, 2, 3]
    assert len(log.records()) == 2


def test_all_bad_is_a_400_problem_with_the_results():
    answer, log = post([{"a": 1}])
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["code"], body["status"], body["accepted"]) == ("all_rejected", 400, 0)
    assert body["results"][0]["code"] == "missing_field"
    assert log.sent == []


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({}, b"x" * 2048, 413),
        ({"content-type": "application/xml"}, b"<a/>", 415),
        ({"content-encoding": "br"}, b"{}", 415),
        ({}, b"", 400),
        ({}, b"[" + b",".join([b"{}"] * 5) + b"]", 413),
    ],
)
def test_refused_requests(headers, body, status):
    answer, log = post(body, headers=headers, max_body_kb=1, max_events=4)
    assert answer.status_code == status
    assert answer.json()["status"] == status
    assert log.sent == []


def test_with_the_log_away_it_is_503_with_retry_after_and_not_ready():
    log = ScriptedLog()
    log.away = LogUnavailable("the broker does not answer")

    async def work(client, _):
        answer = await client.post("/v1/events", json=GOOD)
        return answer, await client.get("/health/ready"), await client.get("/health/live")

    answer, ready, live = with_collector(log, work)
    assert (answer.status_code, answer.json()["code"]) == (503, "log_unavailable")
    assert int(answer.headers["retry-after"]) > 0
    assert (ready.status_code, live.status_code) == (503, 200)


def test_a_log_that_hangs_is_503_within_the_timeout_and_ready_when_it_is_back():
    log = ScriptedLog()
    log.gate.clear()

    async def work(client, services):
        first = asyncio.create_task(client.post("/v1/events", json=event(1)))
        await asyncio.to_thread(log.entered.wait, 30)
        # This one is not on its way when its time is over: it is never written.
        second = await client.post("/v1/events", json=event(2))
        log.gate.set()
        # Its own time-out is as short: a busy machine may need a second try.
        for _ in range(50):
            third = await client.post("/v1/events", json=event(3))
            if third.status_code == 202:
                break
        return (await first).status_code, second.status_code, third.status_code, services.batcher.log_up

    assert with_collector(log, work, ack_timeout_s=0.3) == (503, 503, 202, True)
    # Of the values only: a request's id, in the headers, may have any two letters in it.
    assert not any(b"e2" in record.value for record in log.records())


def test_past_the_queue_it_is_429_and_nothing_that_was_accepted_is_lost():
    log = ScriptedLog()

    async def work(client, services):
        await client.post("/v1/events", json=event(0))
        log.gate.clear()
        log.entered.clear()
        on_its_way = asyncio.create_task(client.post("/v1/events", json=event(1)))
        await asyncio.to_thread(log.entered.wait, 30)
        waiting = asyncio.create_task(client.post("/v1/events", json=[event(i) for i in range(2, 6)]))
        await until(lambda: queued(services) == 4)
        refused = await client.post("/v1/events", json=event(9))
        log.gate.set()
        return refused, (await on_its_way).status_code, (await waiting).status_code

    refused, *accepted = with_collector(log, work, queue_events=4)
    assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
    assert "retry-after" in refused.headers
    assert accepted == [202, 202]
    assert {json.loads(r.value)["event_id"] for r in log.records()} == {f"e{i}" for i in range(6)}


def test_many_requests_share_few_writes():
    log = ScriptedLog()

    async def work(client, services):
        log.gate.clear()
        tasks = [asyncio.create_task(client.post("/v1/events", json=event(0)))]
        await asyncio.to_thread(log.entered.wait, 30)
        tasks += [asyncio.create_task(client.post("/v1/events", json=event(i))) for i in range(1, 50)]
        await until(lambda: queued(services) == 49)
        log.gate.set()
        return {(await t).status_code for t in tasks}

    assert with_collector(log, work) == {202}
    assert [len(write) for write in log.sent] == [1, 49]


def test_a_record_too_large_for_the_broker_costs_its_neighbours_nothing():
    log = ScriptedLog()
    log.fail = [RecordTooLarge("too large"), RecordTooLarge("too large")]

    async def work(client, services):
        log.gate.clear()
        first = asyncio.create_task(client.post("/v1/events", json=event(0)))
        await asyncio.to_thread(log.entered.wait, 30)
        others = [asyncio.create_task(client.post("/v1/events", json=event(i))) for i in (1, 2)]
        await until(lambda: queued(services) == 2)
        log.gate.set()
        return [(await t).status_code for t in (first, *others)]

    # The first write fails; the second, of two requests, fails too and is made again one by one.
    assert with_collector(log, work) == [503, 202, 202]


def test_a_missing_topic_is_503_and_not_ready():
    log = ScriptedLog()
    log.fail = [UnknownTopic("no topic tide.events")]

    async def work(client, services):
        return (await client.post("/v1/events", json=GOOD)).status_code, services.batcher.log_up

    assert with_collector(log, work) == (503, False)


def test_the_rate_limit_is_429_with_the_seconds_to_wait():
    log = ScriptedLog()

    async def work(client, services):
        services.upload._quota._clock = lambda: 0.0  # nothing comes back, however long this takes
        first = await client.post("/v1/events", json=[event(i) for i in range(5)])
        return first.status_code, await client.post("/v1/events", json=event(9))

    first, second = with_collector(log, work, max_rate=5)
    assert first == 202
    assert (second.status_code, second.headers["retry-after"]) == (429, "1")


def test_other_origins_and_beacons():
    log = ScriptedLog()

    async def work(client, _):
        origin = {"origin": "https://shop.example"}
        preflight = await client.options(
            "/v1/events", headers={**origin, "access-control-request-method": "POST"}
        )
        beacon = await client.post(
            "/v1/events",
            content=json.dumps(GOOD),
            headers={**origin, "content-type": "text/plain;charset=UTF-8"},
        )
        return preflight, beacon

    preflight, beacon = with_collector(log, work)
    assert preflight.status_code == 204
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert "content-type" in preflight.headers["access-control-allow-headers"]
    for answer in (preflight, beacon):
        assert answer.headers["access-control-allow-origin"] == "https://shop.example"
        assert answer.headers["access-control-allow-credentials"] == "true"
    assert beacon.status_code == 202


def test_stopping_writes_what_waits_and_takes_nothing_new():
    log = ScriptedLog()

    async def work(client, services):
        log.gate.clear()
        waiting = asyncio.create_task(client.post("/v1/events", json=event(1)))
        await asyncio.to_thread(log.entered.wait, 30)
        stopping = asyncio.create_task(services.stop())
        await until(lambda: services.batcher._stopping)
        ready = await client.get("/health/ready")
        refused = await client.post("/v1/events", json=event(2))
        log.gate.set()
        await stopping
        return (await waiting).status_code, refused, ready

    accepted, refused, ready = with_collector(log, work)
    assert accepted == 202
    assert (refused.status_code, refused.json()["code"]) == (503, "stopping")
    assert (ready.status_code, ready.json()["code"]) == (503, "stopping")
    assert len(log.records()) == 1


def test_other_methods_and_paths_are_problems_and_requests_have_ids():
    async def work(client, _):
        return (
            await client.get("/v1/events"),
            await client.get("/nowhere"),
            await client.get("/health/live", headers={"x-request-id": "abc-1"}),
            await client.get("/health/live", headers={"x-request-id": "bad id\t"}),
        )

    method, path, named, insane = with_collector(ScriptedLog(), work)
    assert (method.status_code, method.headers["allow"]) == (405, "OPTIONS, POST")
    assert (path.status_code, path.json()["code"]) == (404, "not_found")
    assert named.headers["x-request-id"] == "abc-1"
    assert insane.headers["x-request-id"] != "bad id\t"


def test_metrics_count_what_happened_without_names_of_users():
    async def work(client, _):
        await client.post("/v1/events", json=[event(1, user_id="secret-user"), {"bad": 1}])
        return (await client.get("/metrics")).text

    text = with_collector(ScriptedLog(), work)
    assert "clicktide_collector_events_accepted_total 1.0" in text
    assert 'clicktide_collector_events_rejected_total{code="missing_field"} 1.0' in text
    assert 'route="/v1/events",status="207"' in text
    assert "secret-user" not in text
