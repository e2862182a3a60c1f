"""The collector killed again and again at 2,000 events/s: every 202 is in the ledger, and what is sent again counts once.

Two senders, as in life: the generator, whose truth the ledger judges, and the Python client, which must bring away whatever it took.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import threading
import time
from contextlib import closing

import pytest
from integration.demo.demo_process import COMMAND, demo, environment, tide, views, wait_for

from clicktide.client import Client
from deploy.embedded.places import Places

pytestmark = [pytest.mark.embedded, pytest.mark.chaos, pytest.mark.timeout(400)]
GENERATED, CLIENTS, SECONDS, KILLS = 1500, 500, 6, 2
USERS = 50


def rows(data_dir, pattern):
    """Ids stored in SQL, once a row."""
    found = []
    for shard in Places(data_dir).shards:
        with closing(sqlite3.connect(f"file:{shard}?mode=ro", uri=True, timeout=30)) as link:
            found += [
                i for (i,) in link.execute("SELECT event_id FROM events WHERE event_id LIKE ?", [pattern])
            ]
    return found


def feed(client, ids):
    """An open loop: what is due is sent, however long the last step took."""
    start = time.monotonic()
    while (due := int((time.monotonic() - start) * CLIENTS)) < SECONDS * CLIENTS or len(ids) < due:
        for n in range(len(ids), min(due, SECONDS * CLIENTS)):
            ids.append(client.send(type="view", user_id=f"cl{n % USERS}", event_id=f"cl-{n}"))
        if len(ids) >= SECONDS * CLIENTS:
            return
        time.sleep(0.01)


def generated_views(truth):
    lines = (json.loads(line) for line in truth.read_bytes().splitlines())
    return len({line["event"]["event_id"] for line in lines if line["event"]["type"] == "view"})


def test_every_202_is_in_the_ledger_and_none_is_there_twice(tmp_path):
    truth, said = tmp_path / "truth.jsonl", tmp_path / "generator.txt"
    rejected, ids = [], []
    with demo(tmp_path, "--no-traffic") as running:
        url = f"http://127.0.0.1:{running.record()['port']}"
        words = ["generate", "--rate", str(GENERATED), "--seconds", str(SECONDS), "--seed", "5"]
        words += ["--duplicates", "0.02", "--orders", "0.1", "--to", url, "--truth", str(truth)]
        client = Client(url, queue_events=100_000, on_rejected=lambda *why: rejected.append(why))
        feeding = threading.Thread(target=feed, args=(client, ids))
        with said.open("wb") as out:
            generator = subprocess.Popen([*COMMAND, *words], env=environment(), stdout=out, stderr=out)
        try:
            feeding.start()
            wait_for(lambda: truth.exists() and truth.stat().st_size, "the generator")
            for _ in range(KILLS):
                # Each kill finds requests under way.
                enough = client.counters.accepted + CLIENTS // 4
                wait_for(lambda least=enough: client.counters.accepted > least, "accepted events")
                running.kill("services")
            feeding.join(100)
            assert generator.wait(100) == 0, said.read_text()
            assert client.close(100)
        finally:
            generator.kill()
            generator.wait()
        counters = client.counters
        assert (counters.accepted, counters.dropped, rejected) == (SECONDS * CLIENTS, 0, [])
        assert counters.retries > 0
        assert "requests sent again" in said.read_text()
        judged = tide("ledger", str(truth), "--wait", "60", "--data-dir", str(running.data_dir))
        assert judged.returncode == 0, judged.stdout + judged.stderr
        wanted = generated_views(truth) + len(ids)
        wait_for(
            lambda: len(rows(running.data_dir, "cl-%")) >= len(ids) and views(url) >= wanted,
            "the last events",
        )
        assert sorted(rows(running.data_dir, "cl-%")) == sorted(ids)
        assert wait_for(lambda: max(0, views(url)), "an answer") == wanted
        print(f"{counters}; generator: {said.read_text().splitlines()[-3:]}")
