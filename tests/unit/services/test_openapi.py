"""The OpenAPI document and the real routes say the same."""

import json

import pytest
from scripted_log import ScriptedLog
from starlette.routing import Route, WebSocketRoute

from clicktide.settings import Settings
from services.application import ROLES, Services
from services.problems import CODES

SETTINGS = Settings({"redis.url": "redis://127.0.0.1:1", "sql.dsns": "sqlite:///nowhere.sqlite"})


@pytest.fixture(scope="module")
def services():
    return Services(SETTINGS, ROLES, ScriptedLog())


@pytest.fixture(scope="module")
def document(services):
    return json.loads(json.dumps(services._document))


def routes(services):
    return services.app._app.others.routes


def test_every_route_is_documented_and_every_documented_path_is_a_route(services, document):
    real = {r.path.replace(":id}", "}") for r in routes(services) if isinstance(r, Route)}
    assert real == set(document["paths"])
    assert [r.path for r in routes(services) if isinstance(r, WebSocketRoute)] == ["/v1/live"]


def test_methods_are_those_of_the_registry(services, document):
    for o in services.operations:
        assert o.method.lower() in document["paths"][o.path]
    assert sum(len(methods) for methods in document["paths"].values()) == len(services.operations)


def test_every_reference_leads_somewhere(document):
    text = json.dumps(document)
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names <= set(document["components"]["schemas"])


def test_operation_ids_are_unique_and_path_parameters_declared(document):
    ids = []
    for path, methods in document["paths"].items():
        for operation in methods.values():
            ids.append(operation["operationId"])
            declared = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
            assert declared == {part.split("}")[0] for part in path.split("{")[1:]}
    assert len(ids) == len(set(ids))


def test_query_parameters_are_plain_types(document):
    timeline = document["paths"]["/v1/users/{user_id}/timeline"]["get"]["parameters"]
    by_name = {p["name"]: p["schema"] for p in timeline if p["in"] == "query"}
    assert set(by_name) == {"type", "since", "until", "limit", "cursor"}
    assert by_name["limit"]["type"] == "integer"
    assert by_name["limit"]["maximum"] == 200
    gmv = document["paths"]["/v1/metrics/gmv"]["get"]["parameters"]
    assert {p["name"] for p in gmv if p["in"] == "query"} == {"window", "slide", "from", "to"}


def test_every_problem_code_has_a_client_or_server_status():
    assert all(400 <= status < 600 and title for status, title in CODES.values())


def test_one_role_has_only_its_own_routes():
    def paths(role):
        return {o.path for o in Services(SETTINGS, [role], ScriptedLog()).operations}

    assert "/v1/events" in paths("collector")
    assert "/v1/metrics/gmv" not in paths("collector")
    assert "/v1/metrics/gmv" in paths("query")
    assert "/v1/events" not in paths("query")
    assert "/" in paths("dashboard")
    assert "/v1/metrics/gmv" not in paths("dashboard")
