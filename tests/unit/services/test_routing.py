"""Paths that are found in a table are those that the patterns would have found."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_log import ScriptedLog
from starlette.routing import Match

from clicktide.settings import Settings
from services.application import ROLES, Services

SETTINGS = Settings({"redis.url": "redis://127.0.0.1:1", "sql.dsns": "sqlite:///nowhere.sqlite"})


@pytest.fixture(scope="module")
def table():
    return Services(SETTINGS, ROLES, ScriptedLog()).app._app


def scope_of(method, path):
    return {"type": "http", "method": method, "path": path, "headers": [], "root_path": ""}


def by_patterns(table, method, path):
    """The endpoint and the parameters of the first pattern that fits."""
    for route in table.others.routes:
        match, found = route.matches(scope_of(method, path))
        if match is Match.FULL:
            return found["endpoint"], found["path_params"]
    return None


IDS = st.one_of(
    st.sampled_from(
        ["u1", "", "a/profile", "timeline", "profile", "/", "x/", "users", "{user_id}", "\n", "a%2Fb"]
    ),
    st.text(max_size=5),
)
METHODS = st.sampled_from(["GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT"])


@settings(max_examples=400, deadline=None)
@given(st.data(), METHODS)
def test_the_table_and_the_patterns_agree(table, data, method):
    operation = data.draw(st.sampled_from(table.others.routes)).path
    path = data.draw(IDS).join(part for part in operation.replace(":id}", "}").split("{user_id}"))
    for name in ("{order_id}", "{event_id}", "{id}"):
        path = path.replace(name, data.draw(IDS))
    scope = scope_of(method, path)
    endpoint = table.found(scope)
    if endpoint is not None:
        assert by_patterns(table, method, path) == (endpoint, scope.get("path_params", {}))


@pytest.mark.parametrize(
    "path", ["/v1/users/u1/timeline", "/v1/users/u1/profile", "/v1/metrics/gmv", "/health/live"]
)
def test_what_is_asked_most_is_in_the_table(table, path):
    assert table.found(scope_of("GET", path)) is not None


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/users//profile"),
        ("GET", "/v1/users/a/b/profile"),
        ("GET", "/v1/people/u1/profile"),
        ("DELETE", "/v1/users/u1/profile"),
        ("HEAD", "/v1/users/u1/profile"),
    ],
)
def test_what_is_not_plain_is_left_to_the_patterns(table, method, path):
    assert table.found(scope_of(method, path)) is None
