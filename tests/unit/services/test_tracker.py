"""`/tide.js`: small, made of the source as it is, and served so that caches can do their work."""

import asyncio
import gzip

import httpx
import pytest
from scripted_log import ScriptedLog

from clicktide.settings import Settings
from deploy.tracker import SERVED, SOURCE, banner
from services.application import Services
from services.collector.tracker import FRESH_S


def get(method="GET", **headers):
    async def ask():
        services = Services(Settings({}), ["collector"], ScriptedLog())
        transport = httpx.ASGITransport(app=services.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://tide") as client:
            return await client.request(
                method, "/tide.js", headers={"accept-encoding": "identity", **headers}
            )

    return asyncio.run(ask())


def test_it_is_at_most_2_kib_gzipped():
    assert len(gzip.compress(SERVED.read_bytes(), 9)) <= 2048


def test_what_is_served_is_made_of_the_source_as_it_is():
    assert SERVED.read_text("utf-8").startswith(banner(SOURCE.read_bytes()) + "\n"), (
        "python -m deploy.tracker"
    )


def test_any_page_may_load_it_and_keep_it_for_a_while():
    answer = get(origin="https://shop.example")
    assert answer.status_code == 200
    assert answer.content == SERVED.read_bytes()
    assert answer.headers["content-type"].startswith("text/javascript")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert f"max-age={FRESH_S}" in answer.headers["cache-control"]
    assert "content-encoding" not in answer.headers
    assert "set-cookie" not in answer.headers


def test_gzipped_it_is_the_same_by_another_tag():
    plain, zipped = get(), get(**{"accept-encoding": "br, gzip"})
    assert zipped.headers["content-encoding"] == "gzip"
    assert zipped.content == plain.content
    assert zipped.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
    assert zipped.headers["etag"] != plain.headers["etag"]


@pytest.mark.parametrize("form", ["{tag}", "W/{tag}", '"other", {tag}', "*"])
def test_who_has_it_is_told_so(form):
    tag = get().headers["etag"]
    answer = get(**{"if-none-match": form.format(tag=tag)})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)


def test_who_has_another_gets_it():
    assert get(**{"if-none-match": '"other"'}).status_code == 200


def test_head_is_answered():
    assert get("HEAD").status_code == 200
