"""`DELETE /v1/users/{id}` over real stores."""

from __future__ import annotations

import json
import time

import pytest

pytestmark = pytest.mark.embedded
LOCAL = {"host": "localhost"}


def events(n, user="u1"):
    now = time.time_ns() // 1_000_000
    return [
        {"event_id": f"{user}-{i}", "type": "view", "user_id": user, "occurred_at": now - i} for i in range(n)
    ]


def test_an_erased_user_is_gone_and_stays_gone_and_the_trail_does_not_say_who(place):
    rows = place.rows(events(3))
    place.apply(rows)
    place.persist(rows)
    other = place.rows(events(2, "u2"))
    place.apply(other)
    place.persist(other)

    async def work(client, _):
        first = await client.delete("/v1/users/u1", headers=LOCAL)
        again = await client.delete("/v1/users/u1", headers=LOCAL)
        gone = await client.get("/v1/users/u1/timeline")
        kept = await client.get("/v1/users/u2/timeline")
        return first, again, gone, kept

    first, again, gone, kept = place.ask(work, roles=["query"])
    assert first.status_code == 200, first.text
    assert first.json()["erased"] == {"redis": 3, "mysql": 3, "orders": 0}
    assert again.json()["erased"] == {"redis": 0, "mysql": 0, "orders": 0}
    assert gone.status_code == 404
    assert len(kept.json()["events"]) == 2
    lines = [json.loads(x) for x in (place.folder / "dead-audit.jsonl").read_text().splitlines()]
    assert [x["state"] for x in lines] == ["begun", "done"] * 2
    assert "u1" not in json.dumps(lines)


def test_it_is_for_this_machine_or_an_admin_key(place):
    async def work(client, _):
        return await client.delete("/v1/users/u1", headers={"host": "evil.example"}), await client.get(
            "/v1/users/u1"
        )

    refused, other_method = place.ask(work, roles=["query"])
    assert refused.status_code == 401
    assert (other_method.status_code, other_method.headers["allow"]) == (405, "DELETE, OPTIONS")
