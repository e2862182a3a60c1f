"""The Python client against a collector with scripted faults: what is sent, sent again, refused, and dropped."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fake_collector import fake_collector
from ports import free_ports

from clicktide.client import Client, ClientClosed, QueueFull
from clicktide.client import client as module
from clicktide.client.backoff import pause_s

ROOT = Path(__file__).resolve().parents[3]
PATIENCE_S = 30


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    """No test waits for a real backoff."""
    monkeypatch.setattr(module, "pause_s", lambda attempt, retry_after, chance: 0.001)


@pytest.fixture
def server():
    with fake_collector() as server:
        yield server


def view(**more):
    return {"type": "view", "user_id": "7", **more}


def held(server):
    """The next request is answered only when the event is set; gives (seen, go)."""
    seen, go = threading.Event(), threading.Event()

    def answer(_lines):
        seen.set()
        go.wait(PATIENCE_S)
        return 503, {}, {}

    server.faults.append(answer)
    return seen, go


def test_events_arrive_with_id_time_and_clock(server):
    before = int(time.time() * 1000)
    with Client(server.url, linger_s=0.001) as client:
        first = client.send(view(item_id="i", page="/\u2028é"))
        second = client.send(type="cart", user_id=8, event_id="mine", occurred_at=before - 5, sent_at=1)
        third = client.send(view(occurred_at=datetime(2025, 11, 11, tzinfo=UTC)))
        assert client.flush(PATIENCE_S)
        assert client.counters._replace(requests=0) == client.counters.__class__(taken=3, accepted=3)
    one, two, three = server.events()
    assert (one["event_id"], two["event_id"], three["event_id"]) == (first, second, third)
    assert second == "mine"
    assert before <= one["occurred_at"] <= one["sent_at"] <= time.time() * 1000
    assert one["page"] == "/\u2028é"
    assert (two["occurred_at"], two["sent_at"] >= before) == (before - 5, True)
    assert three["occurred_at"] == 1762819200000


def test_what_the_caller_changes_later_changes_nothing(server):
    event = view(tags=["a"])
    with Client(server.url) as client:
        client.send(event)
        event["tags"].append("b")
        event["type"] = "pay"
    assert (server.events()[0]["type"], server.events()[0]["tags"]) == ("view", ["a"])


def test_many_events_are_few_requests_in_order_and_gzipped(server):
    with Client(server.url, linger_s=5, batch_events=100) as client:
        ids = [client.send(view(item_id=str(n))) for n in range(250)]
        assert client.flush(PATIENCE_S)
        assert client.counters.requests == server.requests == server.compressed == 3
    assert [e["event_id"] for e in server.events()] == ids


def test_a_batch_is_bounded_in_bytes_but_a_single_event_always_goes(server):
    with Client(server.url, linger_s=5, batch_bytes=3000) as client:
        for size in (1000, 1000, 1000, 8000, 10):
            client.send(view(page="x" * 1000, note="n" * size))
        assert client.flush(PATIENCE_S)
    assert len(server.taken) == 5
    assert server.requests == 5


@pytest.mark.parametrize("fault", [503, 429, 500, 401, 404, 301, 200, "lost", "reset", 408])
def test_whatever_comes_back_an_event_is_sent_again_until_it_is_accepted(server, fault):
    server.faults += [fault, fault, fault]
    with Client(server.url) as client:
        sent = client.send(view())
        assert client.flush(PATIENCE_S)
        assert client.counters.accepted == 1
        assert client.counters.retries >= 2
        assert client.counters.last_error == ""
    assert {e["event_id"] for e in server.events()} == {sent}
    assert {e["occurred_at"] for e in server.events()} == {server.events()[0]["occurred_at"]}


@pytest.mark.parametrize(
    "answer",
    [
        (202, {"accepted": 2}),
        (202, "<html>"),
        (207, {"accepted": 0, "results": [{"index": 0, "status": "perhaps"}]}),
        (207, {"accepted": 1, "results": []}),
    ],
)
def test_an_answer_that_is_not_the_collectors_is_no_acceptance(server, answer):
    server.faults.append(lambda _lines: (*answer, {}))
    with Client(server.url) as client:
        client.send(view())
        assert client.flush(PATIENCE_S)
    assert len(server.taken) == 1


def test_nobody_there_then_somebody():
    (port,) = free_ports(1)
    client = Client(f"http://127.0.0.1:{port}")
    sent = client.send(view())
    wait_until(lambda: "refused" in client.counters.last_error)
    assert not client.flush(0.05)
    with fake_collector(port) as server:
        assert client.flush(PATIENCE_S)
        assert [e["event_id"] for e in server.events()] == [sent]
        client.close()


def test_the_bad_ones_of_a_batch_are_told_and_cost_their_neighbours_nothing(server):
    told = []
    with Client(server.url, on_rejected=lambda *why: told.append(why)) as client:
        good = [client.send(view()), client.send(view(type="order"))]
        good.append(client.send(view()))
        assert client.flush(PATIENCE_S)
        assert (client.counters.accepted, client.counters.rejected) == (2, 1)
    assert [(event["event_id"], code) for event, code, _ in told] == [(good[1], "missing_order_id")]


def test_one_that_is_refused_alone_is_told_too_and_a_broken_callback_ends_nothing(server, caplog):
    def broken(*_):
        raise RuntimeError("mine")

    with Client(server.url, on_rejected=broken, linger_s=0.001) as client:
        client.send(type="nothing", user_id="1")
        client.flush(PATIENCE_S)
        client.send(view())
        assert client.flush(PATIENCE_S)
        assert (client.counters.accepted, client.counters.rejected) == (1, 1)
    assert "on_rejected failed" in caplog.text


def test_a_batch_that_is_refused_as_a_whole_is_halved_until_the_offender_is_alone(server):
    def refuse(lines):
        return 413, {"code": "too_large", "detail": str(len(lines))}, {}

    told = []
    with Client(server.url, on_rejected=lambda *why: told.append(why), linger_s=5) as client:
        server.faults += [refuse, refuse, refuse]  # of 4, of the first 2, of the first
        ids = [client.send(view()) for _ in range(4)]
        assert client.flush(PATIENCE_S)
    assert [(event["event_id"], code) for event, code, _ in told] == [(ids[0], "too_large")]
    assert [e["event_id"] for e in server.events()] == ids[1:]


@pytest.mark.parametrize("events", [1, 2])
def test_a_user_over_the_limit_waits_and_the_others_do_not(server, monkeypatch, events):
    asked = []

    def pause(_attempt, retry_after, _chance):
        asked.append(retry_after)
        return 0.5

    monkeypatch.setattr(module, "pause_s", pause)

    def limited(lines):
        results = [{"index": 0, "status": "rejected", "code": "user_rate_limited"}]
        results += [{"index": i, "status": "accepted"} for i in range(1, len(lines))]
        status = 207 if len(lines) > 1 else 429
        return status, {"accepted": len(lines) - 1, "results": results}, {"Retry-After": "7"}

    server.faults.append(limited)
    with Client(server.url, linger_s=0.05, batch_events=events) as client:
        hot, *_, other = [client.send(view()) for _ in range(events + 1)]
        wait_until(lambda: server.taken)
        assert server.events()[0]["event_id"] == other
        assert client.counters.rejected == 0
        assert client.flush(PATIENCE_S)
        assert client.counters.accepted == events + 1
    assert [e["event_id"] for e in server.events()] == [other, hot]
    assert asked == [7.0]


def wait_until(look):
    until = time.monotonic() + PATIENCE_S
    while not look():
        assert time.monotonic() < until
        time.sleep(0.002)


@pytest.mark.parametrize("bound", [{"queue_events": 3}, {"queue_bytes": 400}])
def test_a_full_queue_drops_the_new_ones_and_counts_them(server, bound):
    seen, go = held(server)
    with Client(server.url, linger_s=0, **bound) as client:
        first = client.send(view())
        assert seen.wait(PATIENCE_S)
        answers = [client.send(view()) for _ in range(20)]
        taken = [first, *(a for a in answers if a)]
        counters = client.counters
        assert counters.dropped == 21 - len(taken)
        assert counters.waiting == counters.taken == len(taken) == 3
        go.set()
        assert client.flush(PATIENCE_S)
        assert client.send(view()) is not None
    assert [e["event_id"] for e in server.events()][:3] == taken


def test_or_it_raises(server):
    seen, go = held(server)
    with Client(server.url, linger_s=0, queue_events=1, when_full="raise") as client:
        client.send(view())
        assert seen.wait(PATIENCE_S)
        with pytest.raises(QueueFull, match="1 events wait"):
            client.send(view())
        go.set()


def test_send_never_waits_for_the_collector(server):
    seen, go = held(server)
    with Client(server.url, linger_s=0) as client:
        client.send(view())
        assert seen.wait(PATIENCE_S)  # the only connection hangs
        for _ in range(1000):
            client.send(view())
        assert not go.is_set()
        assert client.counters.waiting == 1001
        go.set()


@pytest.mark.parametrize(
    ("event", "error"),
    [
        ({"amount": float("nan")}, ValueError),
        ({"page": "\ud800"}, ValueError),
        ({"f": object()}, TypeError),
        ({"occurred_at": datetime(2025, 1, 1)}, ValueError),
    ],
)
def test_what_is_no_json_is_the_callers_error(server, event, error):
    with Client(server.url) as client:
        with pytest.raises(error):
            client.send(view(**event))
        assert client.counters.taken == 0


@pytest.mark.parametrize("url", ["", "collector", "ftp://x", "http://", "http://x:port", "http://x:99999"])
def test_an_address_that_is_none_is_refused_at_once(url):
    with pytest.raises(ValueError, match="expected http"):
        Client(url)


@pytest.mark.parametrize("path", ["", "/", "/v1/events", "/v1/events/"])
def test_the_path_may_be_there_or_not_and_the_key_is_sent(server, path):
    with Client(server.url + path, key="secret") as client:
        client.send(view())
        assert client.flush(PATIENCE_S)
    assert server.seen[-1][0] == "/v1/events"
    assert server.seen[-1][1]["Authorization"] == "Bearer secret"


def test_close_sends_what_waits_and_takes_no_more(server):
    client = Client(server.url, linger_s=60)
    client.send(view())
    assert client.close(PATIENCE_S)
    assert client.close(PATIENCE_S)
    assert len(server.taken) == 1
    with pytest.raises(ClientClosed):
        client.send(view())
    wait_until(lambda: not client._thread.is_alive())


def test_close_gives_a_last_try_to_what_waits_for_its_next(server, monkeypatch):
    monkeypatch.setattr(module, "pause_s", lambda *_: 600.0)
    server.faults.append(503)
    client = Client(server.url, linger_s=0)
    client.send(view())
    wait_until(lambda: client.counters.retries == 1)
    assert client.close(PATIENCE_S)
    assert len(server.taken) == 1


def test_close_with_the_collector_away_ends_in_time_and_says_what_is_left(server, caplog):
    server.faults += [503] * 10_000
    client = Client(server.url)
    client.send(view())
    assert not client.close(0.05)
    assert "1 events" in caplog.text
    assert client.counters.waiting == 1
    wait_until(lambda: not client._thread.is_alive())


def test_what_was_not_accepted_for_too_long_is_given_up(server):
    told = []
    server.faults += [503] * 3
    with Client(server.url, give_up_s=-1, on_rejected=lambda *why: told.append(why[1])) as client:
        client.send(view())
        assert client.flush(PATIENCE_S)
        assert (client.counters.given_up, client.counters.accepted) == (1, 0)
    assert told == ["given_up"]


def test_an_outage_is_one_line_in_the_log(server, caplog):
    server.faults += [503] * 5
    with caplog.at_level(logging.WARNING), Client(server.url) as client:
        client.send(view())
        assert client.flush(PATIENCE_S)
    assert len([r for r in caplog.records if r.name == "clicktide.client"]) == 1


def test_many_threads_lose_nothing(server):
    with Client(server.url, queue_events=100_000) as client:

        def work(n):
            for i in range(300):
                client.send(view(event_id=f"{n}-{i}"))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert client.flush(PATIENCE_S)
    assert len({e["event_id"] for e in server.events()}) == len(server.taken) == 1800


def test_a_child_after_a_fork_sends_its_own_and_not_its_parents(server):
    seen, go = held(server)
    client = Client(server.url, linger_s=0)
    client.send(view(event_id="parents"))
    assert seen.wait(PATIENCE_S)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            client.send(view(event_id="childs"))
            code = 0 if client.flush(PATIENCE_S) and client.counters.accepted == 1 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [e["event_id"] for e in server.events()] == ["childs"]
    go.set()
    assert client.close(PATIENCE_S)
    assert sorted(e["event_id"] for e in server.events()) == ["childs", "parents"]


def test_at_exit_what_waits_is_sent(server):
    script = f"from clicktide.client import Client; Client({server.url!r}, linger_s=60).send(type='view', user_id='1')"
    # -S: nothing that is installed, only the standard library.
    done = subprocess.run(
        [sys.executable, "-S", "-c", script],
        env={"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(server.taken) == 1


def test_pauses_have_full_jitter_and_hold_what_the_collector_asks():
    assert pause_s(0, None, lambda: 1.0) == pytest.approx(0.1)
    assert pause_s(3, None, lambda: 0.5) == pytest.approx(0.4)
    assert pause_s(10**6, None, lambda: 1.0) == 30.0
    assert pause_s(5, None, lambda: 0.0) == 0.0
    assert pause_s(0, 7.0, lambda: 1.0) == pytest.approx(7.1)
    assert pause_s(0, 10.0**9, lambda: 0.0) == 600.0
    assert pause_s(0, -5.0, lambda: 0.0) == 0.0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("3", 3.0), (" 0 ", 0.0), (None, None), ("soon", None), ("Tue, 11 Nov 2025 00:00:09 GMT", 9.0)],
)
def test_retry_after_is_seconds_or_a_date(header, seconds):
    from clicktide.client.transport import seconds_of

    now = datetime(2025, 11, 11, tzinfo=UTC)
    assert seconds_of(header, now.timestamp()) == seconds
    assert now - timedelta(seconds=1) < now


def test_every_sent_event_is_one_line_of_json():
    from clicktide.client.item import item

    text = item(1, view(page="a\nb"), 5, lambda: "id").sent(9)
    assert b"\n" not in text
    assert json.loads(text) == {**view(page="a\nb"), "event_id": "id", "occurred_at": 5, "sent_at": 9}
