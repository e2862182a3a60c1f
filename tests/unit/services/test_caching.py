"""Caching headers, completeness by partition, and funnels."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from clicktide.log.port import Record
from clicktide.read.lag import Standing
from services.query.caching import is_known, tag_of, tagged
from services.query.health import complete_by
from services.query.metrics import funnel_steps


def request(tag=None):
    headers = [] if tag is None else [(b"if-none-match", tag.encode())]
    return Request({"type": "http", "method": "GET", "headers": headers})


BODY = {"as_of": 5, "degraded": [], "totals": {"a": 1}}


def test_the_tag_is_of_the_figures_alone():
    assert tag_of(BODY) == tag_of({**BODY, "as_of": 9, "degraded": ["redis"]})
    assert tag_of(BODY) != tag_of({**BODY, "totals": {"a": 2}})


@pytest.mark.parametrize(
    ("given", "known"),
    [
        (None, False), ("", False), ('"x"', False), ("*", True), ('W/"t"', True), ('"t"', True),
        ('"x", W/"t"', True), ("t", False),
    ],
)  # fmt: skip
def test_if_none_match_is_a_list_compared_weakly(given, known):
    assert is_known(request(given), 'W/"t"') == known


def test_304_has_the_headers_and_no_body():
    tag = tag_of(BODY)
    response = tagged(request(tag), BODY, tag, closed=False)
    assert (response.status_code, response.body, response.headers["etag"]) == (304, b"", tag)
    assert response.headers["cache-control"] == "private, no-cache"
    assert tagged(request(), BODY, tag, closed=True).headers["cache-control"] == "private, max-age=3600"


def test_what_is_degraded_is_not_for_keeping():
    tag = tag_of(BODY)
    response = tagged(request(tag), {**BODY, "degraded": ["redis"]}, tag, closed=True)
    assert (response.status_code, response.headers["cache-control"]) == (200, "no-store")
    assert "etag" not in response.headers


def waiting(partition, timestamp=None, *, origin=None, records=1):
    first = None
    if timestamp is not None:
        headers = () if origin is None else (("tide-origin-timestamp", b"%d" % origin),)
        first = Record("t", partition, 0, timestamp, b"k", b"v", headers)
    return Standing(partition, 0, 0, records, first)


def test_complete_is_what_was_uploaded_before_the_first_that_waits():
    standings = {
        "tide.events": [waiting(0, records=0), waiting(1, 700), waiting(2, 2000)],
        "tide.retry.1s": [waiting(0, 900, origin=300), waiting(1, records=0), waiting(2, records=0)],
        "tide.dead": [waiting(0, 1), waiting(1, 1), waiting(2, 1)],
    }
    # Partition 2's record came after the look; dead letters wait for nobody.
    assert complete_by(standings, 1000, "tide.", {}) == {0: 300, 1: 700, 2: 1000}


def test_where_what_waits_cannot_be_read_the_last_known_stays():
    standings = {"tide.events": [waiting(0), waiting(1)], "tide.retry.1s": [waiting(0, records=0)]}
    assert complete_by(standings, 1000, "tide.", {0: 600}) == {0: 600, 1: 0}


def test_funnel_steps_are_shares_of_the_first_and_of_the_one_before():
    steps = funnel_steps({"view": 200, "click": 50, "cart": 0, "order": 10, "pay": 9})
    assert [(s["of_first"], s["of_previous"]) for s in steps] == [
        (1.0, 1.0), (0.25, 0.25), (0.0, 0.0), (0.05, None), (0.045, 0.9),
    ]  # fmt: skip
    assert funnel_steps(dict.fromkeys(("view", "click", "cart", "order", "pay"), 0))[0]["of_first"] is None
