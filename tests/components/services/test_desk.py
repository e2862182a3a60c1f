"""`/v1/dead` over a real log and Redis: as admins and as others ask."""

from __future__ import annotations

import base64
import json

import pytest

from clicktide import topics
from clicktide.log.port import Outgoing, TopicPartition
from services.access import keyfile
from services.access.keyfile import Key, Keys, Secret

pytestmark = pytest.mark.embedded
LOCAL = {"host": "127.0.0.1"}
RAW = b'{"user_id":"u1","oops":\xff}'


@pytest.fixture
def desk(place):
    return Dead(place)


class Dead:
    """A place with dead letters; asks as this machine's own user unless told otherwise."""

    def __init__(self, place) -> None:
        self.place, self.at = place, 0

    def bury(self, stage="parse", code="not_json", user=b"u1", offset=None, value=RAW, replay_id=""):
        offset = self.at if offset is None else offset
        self.at += 1
        headers = {
            topics.ORIGIN: f"tide.events:1:{offset}",
            topics.ORIGIN_TOPIC_ID: "t0",
            topics.STAGE: stage,
            topics.ERROR_CODE: code,
            topics.ERROR: "it was bad",
            topics.REPLAY_ID: replay_id,
        }
        pairs = tuple((k, v.encode()) for k, v in headers.items() if v)
        # A record keeps its partition's number for ever.
        self.place.log.producer().send([Outgoing("tide.dead", user, value, pairs, 1)], 5)
        return f"events:1:{offset}"

    def ask(self, method, path, headers=LOCAL, **more):
        async def work(client, _):
            return await client.request(method, path, headers=headers, **more)

        return self.place.ask(work, roles=["query"])

    def get(self, path, **params):
        return self.ask("GET", path, params=params or None)

    def post(self, path, **order):
        return self.ask("POST", path, json=order)

    def ids(self, **params):
        return [x["id"] for x in self.get("/v1/dead", **params).json()["letters"]]

    def records(self, topic):
        consumer = self.place.log.consumer("t")
        partitions = [TopicPartition(f"tide.{topic}", p) for p in (0, 1)]
        bounds = consumer.bounds(partitions)
        found = [r for p, (a, b) in bounds.items() for r in consumer.fetch(p, list(range(a, b)), 5).values()]
        consumer.close()
        return found

    def audit(self):
        path = self.place.folder / "dead-audit.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_letters_are_listed_newest_first_by_pages_and_each_once(desk):
    names = [desk.bury() for _ in range(5)]
    desk.bury(offset=0)  # dies again: the first is now the newest
    order = [names[0], *names[:0:-1]]
    assert desk.ids() == order
    paged, cursor = [], None
    while True:
        body = desk.get("/v1/dead", limit=2, **({"cursor": cursor} if cursor else {})).json()
        assert body["matching"] == 5
        paged += [x["id"] for x in body["letters"]]
        cursor = body["next"]
        if cursor is None:
            break
    assert paged == order
    assert desk.get("/v1/dead", limit=1).json()["letters"][0]["times"] == 2


def test_filters(desk):
    a = desk.bury(stage="mysql.17", code="store_refused", user=b"u2")
    desk.bury()
    assert desk.ids(stage="mysql") == desk.ids(code="store_refused") == desk.ids(user="u2") == [a]
    assert desk.ids(topic="backfill") == []
    assert desk.ids(until=1) == []
    assert len(desk.ids(since="2020-01-01T00:00:00Z")) == 2


def test_one_is_shown_with_its_bytes_headers_and_history(desk):
    name = desk.bury()
    body = desk.get(f"/v1/dead/{name}").json()
    (letter,) = body["letters"]
    assert base64.b64decode(letter["value_base64"]) == RAW
    assert letter["headers"][topics.ORIGIN] == "tide.events:1:0"
    assert body["audit"] == []
    assert desk.get("/v1/dead/events:1:99").json()["code"] == "unknown_letter"


@pytest.mark.parametrize(
    "path", ["/v1/dead/nonsense", "/v1/dead?limit=0", "/v1/dead?colour=red", "/v1/dead?since=x"]
)
def test_bad_questions_are_400(desk, path):
    answer = desk.get(path)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_parameter")


@pytest.mark.parametrize("cursor", ["x", "\u00e9", "MS4y", "////", "LTEuYS4x"])
def test_bad_cursors_are_400(desk, cursor):
    assert desk.get("/v1/dead", cursor=cursor).json()["code"] == "bad_cursor"


def test_a_replay_is_dry_unless_told_otherwise_and_then_leaves_dead(desk):
    name, other = desk.bury(), desk.bury(stage="redis")
    dry = desk.post("/v1/dead/replay", stage="parse")
    assert (dry.json()["dry_run"], dry.json()["matching"], dry.json()["sent"]) == (True, 1, 0)
    assert len(desk.ids()) == 2
    done = desk.post("/v1/dead/replay", stage="parse", dry_run=False).json()
    assert (done["sent"], done["left"]) == (1, 0)
    assert desk.ids() == [other]
    (record,) = desk.records("retry.1s")
    assert record.value == RAW
    (line,) = desk.audit()
    assert (line["action"], line["id"], line["run"]) == ("replay", name, done["run"])
    assert "u1" not in json.dumps(line)
    assert desk.get(f"/v1/dead/{name}").json()["audit"] == [line]


def test_a_replay_sends_no_more_than_its_limit_oldest_first(desk):
    names = [desk.bury() for _ in range(4)]
    done = desk.post("/v1/dead/replay", all=True, dry_run=False, limit=3, rate=1000).json()
    assert (done["matching"], done["sent"], done["left"]) == (4, 3, 1)
    assert desk.ids() == names[3:]


def test_a_replay_that_would_take_too_long_for_a_request_is_refused(desk):
    answer = desk.post("/v1/dead/replay", all=True, dry_run=False, rate=1)
    assert (answer.status_code, answer.json()["parameter"]) == (400, "limit")


def test_letters_replayed_too_often_are_refused(desk):
    name = desk.bury(replay_id="run.3")
    done = desk.post("/v1/dead/replay", all=True, dry_run=False).json()
    assert (done["sent"], done["refused"]) == (0, [{"id": name, "replays": 3}])
    assert desk.post("/v1/dead/replay", all=True, dry_run=False, force=True).json()["sent"] == 1


def test_a_purge_wants_the_number_that_it_removes(desk):
    desk.bury()
    kept = desk.bury(stage="redis")
    dry = desk.post("/v1/dead/purge", stage="parse").json()
    assert (dry["dry_run"], dry["matching"], dry["removed"]) == (True, 1, 0)
    wrong = desk.post("/v1/dead/purge", stage="parse", confirm=2)
    assert (wrong.status_code, wrong.json()["code"], wrong.json()["matching"]) == (409, "not_confirmed", 1)
    assert len(desk.ids()) == 2
    done = desk.post("/v1/dead/purge", stage="parse", confirm=1).json()
    assert (done["dry_run"], done["removed"]) == (False, 1)
    assert desk.ids() == [kept]
    assert [x["action"] for x in desk.audit()] == ["purge"]


def test_everything_has_to_be_asked_for_by_all(desk):
    desk.bury()
    for path, order in (("replay", {"dry_run": False}), ("purge", {"confirm": 1})):
        answer = desk.post(f"/v1/dead/{path}", **order)
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_parameter")
    assert len(desk.ids()) == 1


def test_ids_that_are_gone_are_404_and_nothing_is_done(desk):
    name = desk.bury()
    answer = desk.post("/v1/dead/replay", ids=[name, "events:1:77"], dry_run=False)
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_letter")
    assert desk.ids() == [name]


@pytest.mark.parametrize(
    ("content", "media", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'{"dry_run":"no"}', "application/json", 400),
        (b'{"more":1}', "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"rate":NaN}', "application/json", 400),
        (b'{"confirm":1' + b"0" * 400 + b"}", "application/json", 400),
        (b'{"all":true}', "text/plain", 415),
        (b" " * 300_000, "application/json", 413),
    ],
)
@pytest.mark.parametrize("what", ["replay", "purge"])
def test_bad_orders_do_nothing(desk, what, content, media, status):
    desk.bury()
    answer = desk.ask("POST", f"/v1/dead/{what}", {**LOCAL, "content-type": media}, content=content)
    assert answer.status_code == status
    assert len(desk.ids()) == 1


def test_with_keys_only_an_admin_may_and_the_trail_names_its_key(desk, tmp_path):
    tokens, keys = {}, []
    for scope in keyfile.SCOPES:
        id_ = f"{scope:x<8}"
        tokens[scope] = keyfile.new_token(scope, id_)
        keys.append(Key(id_, scope, scope, 0, (Secret(keyfile.digest(tokens[scope]), 0),)))
    keyfile.write(tmp_path / "keys.json", Keys(keys=tuple(keys)))
    desk.place.given["keys.file"] = str(tmp_path / "keys.json")
    desk.bury()

    def replay(headers):
        order = {"all": True, "dry_run": False}
        return desk.ask("POST", "/v1/dead/replay", headers, json=order)

    assert replay({}).status_code == 401
    for scope in ("read", "write"):
        assert replay({"authorization": f"Bearer {tokens[scope]}"}).status_code == 403
    assert replay({"authorization": f"Bearer {tokens['admin']}"}).json()["sent"] == 1
    assert [x["by"] for x in desk.audit()] == ["key adminxxx"]


def test_without_keys_a_page_that_calls_itself_by_another_name_is_refused(desk):
    assert desk.ask("GET", "/v1/dead", {"host": "evil.example:8081"}).status_code == 401
    assert desk.ask("GET", "/v1/dead", {"host": "localhost:8081"}).status_code == 200


def test_a_desk_that_is_at_work_elsewhere_is_409(desk):
    from clicktide.log import open_log
    from retry.desk import Desk

    desk.bury()
    with Desk(desk.place.settings, open_log(desk.place.settings), desk.place.folder / "other.jsonl").alone():
        answer = desk.post("/v1/dead/replay", all=True, dry_run=False)
    assert (answer.status_code, answer.json()["code"]) == (409, "busy")
    assert "retry-after" in answer.headers
