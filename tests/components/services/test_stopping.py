"""The collector told to stop: not ready first, then nothing new, and all that it accepted is on the log."""

from __future__ import annotations

import signal
import threading
import time

import httpx
import pytest
from components.services.test_process import event, stored, wait_ready

pytestmark = pytest.mark.embedded


def test_it_says_so_before_it_refuses_and_drains_what_it_accepted(place, serve):
    # So long that a stall of the machine does not use it up.
    place.given["http.unready_s"] = 4.0
    # Requests wait for each other's company, so that some are always under way.
    place.given["http.linger_ms"] = 100.0
    accepted, codes, over = [], [], threading.Event()
    with serve() as (process, url):
        wait_ready(url)

        def client(n):
            with httpx.Client(timeout=30) as http:
                for i in range(n * 100_000, (n + 1) * 100_000):
                    if over.is_set():
                        return
                    try:
                        answer = http.post(f"{url}/v1/events", json=event(i))
                    except httpx.ConnectError:
                        return
                    except httpx.HTTPError:
                        continue  # a connection that was ended between two requests
                    if answer.status_code == 202:
                        accepted.append((time.monotonic(), f"e{i}"))
                    else:
                        codes.append((answer.status_code, answer.json()["code"]))

        threads = [threading.Thread(target=client, args=(n,)) for n in range(6)]
        for t in threads:
            t.start()
        try:
            until = time.monotonic() + 30
            while len(accepted) < 50 and time.monotonic() < until:
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            while (answer := httpx.get(f"{url}/health/ready")).status_code == 200:
                assert time.monotonic() < until
            told = time.monotonic()
            assert (answer.status_code, answer.json()["code"]) == (503, "stopping")
            assert int(answer.headers["retry-after"]) > 0
            assert process.wait(30) == 0
        finally:
            over.set()
            for t in threads:
                t.join(40)
    assert any(at > told for at, _ in accepted), "it takes events while it says that it is to stop"
    assert set(codes) <= {(503, "stopping")}
    ids = {i for _, i in accepted}
    assert ids <= set(stored(place))
