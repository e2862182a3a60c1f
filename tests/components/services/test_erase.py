"""`DELETE /v1/users/{id}` over real stores."""

from __future__ import annotations

import json
import time
from urllib.parse import quote

import pytest

from clicktide import topics
from clicktide.row import USER_ID
from clicktide.settings import Settings

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
    assert first.json()["erased"] == {"redis": 3, "mysql": 3, "orders": 0, "dead": 0}
    assert again.json()["erased"] == {"redis": 0, "mysql": 0, "orders": 0, "dead": 0}
    assert gone.status_code == 404
    assert len(kept.json()["events"]) == 2
    lines = [json.loads(x) for x in (place.folder / "dead-audit.jsonl").read_text().splitlines()]
    assert [x["state"] for x in lines] == ["begun", "done"] * 2
    assert "u1" not in json.dumps(lines)


@pytest.mark.parametrize("user", ["a\n", "\r\n", "\0", "\x1b[31m", "a/profile"])
def test_whoever_could_be_stored_can_be_erased(place, user):
    rows = place.rows(events(2, user))
    place.apply(rows)
    place.persist(rows)

    async def work(client, _):
        return await client.delete(f"/v1/users/{quote(user, safe='')}", headers=LOCAL)

    answer = place.ask(work, roles=["query"])
    assert answer.status_code == 200, answer.text
    assert answer.json()["erased"] == {"redis": 2, "mysql": 2, "orders": 0, "dead": 0}


def test_a_pseudonym_is_the_services_business_and_no_caller_s(place):
    """Callers say the id that the events have; the stores know its hash alone."""
    place.given["ids.pseudonym_key"] = "secret"
    place.settings = Settings(place.given)
    rows = place.rows(events(3))
    place.apply(rows)
    place.persist(rows)
    assert "u1" not in {row[USER_ID] for row in rows}

    async def work(client, _):
        before = [await client.get(f"/v1/users/u1/{name}") for name in ("timeline", "profile", "sessions")]
        gone = await client.delete("/v1/users/u1", headers=LOCAL)
        return before, gone, await client.get("/v1/users/u1/timeline")

    (timeline, profile, sessions), gone, after = place.ask(work, roles=["query"])
    assert [e["event_id"] for e in timeline.json()["events"]] == ["u1-0", "u1-1", "u1-2"]
    assert profile.json()["user_id"] == "u1"
    assert len(sessions.json()["sessions"]) == 1
    assert gone.json()["erased"]["mysql"] == 3
    assert after.json()["type"].endswith("erased_user")


def test_a_user_s_dead_letters_go_and_others_stay(place):
    for offset, user in enumerate((b"u1", b"u2")):
        origin = f"tide.events:0:{offset}".encode()
        headers = ((topics.ORIGIN, origin), (topics.ORIGIN_TOPIC_ID, b"t0"), (topics.STAGE, b"parse"))
        place.send("dead", b"{", user, headers)

    async def work(client, _):
        return await client.delete("/v1/users/u1", headers=LOCAL), await client.get("/v1/dead", headers=LOCAL)

    gone, left = place.ask(work, roles=["query"])
    assert gone.json()["erased"]["dead"] == 1
    assert [x["user"] for x in left.json()["letters"]] == ["u2"]


def test_it_is_for_this_machine_or_an_admin_key(place):
    async def work(client, _):
        return await client.delete("/v1/users/u1", headers={"host": "evil.example"}), await client.get(
            "/v1/users/u1"
        )

    refused, other_method = place.ask(work, roles=["query"])
    assert refused.status_code == 401
    assert (other_method.status_code, other_method.headers["allow"]) == (405, "DELETE, OPTIONS")
