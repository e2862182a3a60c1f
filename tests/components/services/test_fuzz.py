"""Every operation of /openapi.json under generated requests, good and bad: no 5xx, and no answer that the document does not have.

Against the services as a process of their own, over real stores with something in them, with keys. What is generated is the same
in every run. `CLICKTIDE_FUZZ=500` makes so many requests an operation; CI makes few.
"""

from __future__ import annotations

import os
import time
from types import SimpleNamespace

import httpx
import pytest
import schemathesis
from components.services.conftest import Place, emptied, serving
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi import checks
from scripted_log import ScriptedLog

from clicktide import topics
from clicktide.log.port import Outgoing
from clicktide.settings import Settings
from services.access import keyfile
from services.access.keyfile import Key, Keys, Secret
from services.application import ROLES, Services

pytestmark = pytest.mark.embedded

REQUESTS = int(os.environ.get("CLICKTIDE_FUZZ", "10"))
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
# What is there: an id that is made up finds nothing, and says little.
KNOWN = {"user_id": "u1", "order_id": "o1", "event_id": "e1", "id": "events:1:0"}
NOWHERE = {"redis.url": "redis://127.0.0.1:1", "sql.dsns": "sqlite:///nowhere.sqlite", "log.path": "none"}
OPERATIONS = sorted((o.method, o.path) for o in Services(Settings(NOWHERE), ROLES, ScriptedLog()).operations)


def fill(place: Place) -> None:
    now = time.time_ns() // 1_000_000
    common = {"user_id": "u1", "order_id": "o1", "amount": 500, "item_id": "i", "category_id": "c"}
    kinds = ("view", "order", "pay", "refund")
    rows = place.rows(
        [{**common, "event_id": f"e{i}", "type": t, "occurred_at": now - 1000} for i, t in enumerate(kinds)]
    )
    place.apply(rows)
    place.persist(rows)
    headers = {topics.ORIGIN: "tide.events:1:{}", topics.STAGE: "parse", topics.ERROR_CODE: "not_json"}
    place.log.producer().send(
        [
            Outgoing(
                "tide.dead", b"u1", b"\xff", tuple((k, v.format(i).encode()) for k, v in headers.items()), 1
            )
            for i in range(20)
        ],
        5,
    )


@pytest.fixture(scope="module")
def services(tmp_path_factory, server):
    """The running services' schema, and a token of each scope."""
    place = Place(tmp_path_factory.mktemp("fuzz"), emptied(server))
    fill(place)
    tokens, keys = {}, []
    for scope in keyfile.SCOPES:
        id_ = f"{scope:x<8}"
        tokens[scope] = keyfile.new_token(scope, id_)
        keys.append(Key(id_, scope, scope, 0, (Secret(keyfile.digest(tokens[scope]), 0),)))
    path = place.folder / "keys.json"
    keyfile.write(path, Keys(keys=tuple(keys)))
    place.given["keys.file"] = str(path)
    with serving(place) as (process, url):
        deadline = time.monotonic() + 30
        while httpx.get(f"{url}/health/ready").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json", config=SchemathesisConfig(seed=11))
        yield SimpleNamespace(schema=schema, tokens=tokens, process=process)
        process.terminate()
        _, said = process.communicate(timeout=30)
    assert "Traceback" not in said


@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=[" ".join(o) for o in OPERATIONS])
def test_every_answer_is_in_the_document(services, method, path):
    operation = services.schema[path][method]
    good = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    bad = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
    scopes = st.sampled_from(["admin", "admin", "admin", "read", "write", "none"])

    @settings(
        # Erasing waits until Redis has synced.
        max_examples=max(3, REQUESTS // 5) if method == "DELETE" else REQUESTS,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=good | good | bad, scope=scopes, known=st.booleans())
    def ask(case, scope, known):
        if known and case.path_parameters and method != "DELETE":
            case.path_parameters.update({k: v for k, v in KNOWN.items() if k in case.path_parameters})
        token = services.tokens.get(scope)
        headers = {"Authorization": f"Bearer {token}"} if token else {"Authorization": ""}
        answer = case.call(headers={**headers, "X-Tide-Key": ""}, timeout=60)
        case.validate_response(answer, checks=CHECKS)

    ask()
