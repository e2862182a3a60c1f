"""The live page in a real browser: what it shows, in both languages, and what it says when something is away."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest
import redis
from chromium import chromium
from redis_server import running
from sql_dialects import new_sqlite

from clicktide import topics
from clicktide.log import open_log
from clicktide.parse import Parser
from clicktide.redisstore.store import RedisStore
from clicktide.settings import Settings
from services.access import keyfile
from services.access.keyfile import Key, Keys, Secret
from services.server import listen

pytestmark = [pytest.mark.web, pytest.mark.embedded]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(tmp_path_factory.mktemp("redis")) as server:
        yield server


class Page:
    """The services over a filled Redis: `start` and `kill` them; they keep their port."""

    def __init__(self, folder: Path, server, patience_s: float) -> None:
        self.folder, self.server = folder, server
        with listen("127.0.0.1", 0) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self.given = {
            "log.path": str(folder / "log.sqlite"),
            "redis.url": server.url,
            "sql.dsns": new_sqlite(folder / "s0.sqlite"),
            "shards.count": 8,
            "http.store_timeout_s": patience_s,
        }
        self.settings = Settings(self.given)
        open_log(self.settings).admin().create_topics({f"tide.{name}": 1 for name in topics.ALL})
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        own = {"TIDE_" + k.upper().replace(".", "_"): str(v) for k, v in self.given.items()}
        kept = {k: v for k, v in os.environ.items() if not k.startswith("TIDE_")}
        path = f"{ROOT}{os.pathsep}{ROOT / 'src'}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "services", "all", "--port", str(self.port)],
            env={**kept, **own, "PYTHONPATH": path, "TIDE_CONFIG": "none"},
            stdout=subprocess.PIPE,
            cwd=self.folder,
        )
        assert b"http://" in self._process.stdout.readline()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process.stdout.close()
            self._process = None

    def apply(self, *events) -> None:
        parser, now = Parser(self.settings), time.time_ns() // 1_000_000
        rows = [
            parser.row(
                orjson.dumps({"user_id": "u", "occurred_at": now - 5000, **e}).decode(), i, now, 0, "topic0"
            )
            for i, e in enumerate(events)
        ]
        RedisStore(self.settings).apply(rows)


@pytest.fixture
def page(tmp_path, server, request):
    client = redis.Redis.from_url(server.url)
    client.flushall()
    client.close()
    page = Page(tmp_path, server, getattr(request, "param", 10.0))
    page.start()
    page.apply(
        {"event_id": "1", "type": "view", "gender": "female", "province": "四川"},
        {
            "event_id": "2",
            "type": "pay",
            "gender": "male",
            "order_id": "o",
            "amount": 123456,
            "category_id": "<b>1280",
        },
        {"event_id": "3", "type": "refund", "order_id": "o", "amount": 3456},
    )
    try:
        yield page
    finally:
        server.resume()
        page.kill()


@contextmanager
def browser(width=1280, height=900, locale="en-US"):
    program = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        launched = p.chromium.launch(executable_path=program, args=["--no-sandbox"])
        context = launched.new_context(viewport={"width": width, "height": height}, locale=locale)
        tab = context.new_page()
        tab.set_default_timeout(30_000)
        errors: list[str] = []
        tab.on("pageerror", lambda e: errors.append(str(e)))
        tab.on("console", lambda m: errors.append(m.text) if "Content Security Policy" in m.text else None)
        yield tab
        assert errors == []
        launched.close()


def wait_text(tab, selector, text):
    tab.wait_for_function(
        "([s, t]) => document.querySelector(s)?.textContent.includes(t)", arg=[selector, text]
    )


def test_it_shows_what_is_stored_and_follows_it(page):
    with browser() as tab:
        requests: list[str] = []
        tab.on("request", lambda r: requests.append(r.url))
        tab.goto(page.url)
        wait_text(tab, "#gmv", "¥1,234.56")
        assert tab.locator("#money [data-key=refunds] dd").text_content() == "¥34.56"
        assert tab.locator("#money [data-key=net] dd").text_content() == "¥1,200.00"
        assert tab.locator("#types [data-key=view] dd").text_content() == "1"
        assert tab.locator("#genders [data-key=allGirls] dd").text_content() == "1"
        tab.locator("#banner").wait_for(state="hidden")
        # What comes from events is text, never markup.
        wait_text(tab, "#categories", "<b>1280")
        assert tab.locator("#categories b").count() == 0
        wait_text(tab, "#provinces", "四川")
        assert tab.locator("#chart path.female").count() == 1
        assert tab.locator("#states li").count() == 3
        page.apply({"event_id": "4", "type": "pay", "order_id": "p", "amount": 100_000})
        wait_text(tab, "#gmv", "¥2,234.56")
        assert all(r.startswith((page.url, page.url.replace("http", "ws"), "data:")) for r in requests)


def test_both_languages_by_browser_by_button_and_kept(page):
    with browser(locale="zh-CN") as tab:
        tab.goto(page.url)
        wait_text(tab, "h1", "实时大屏")
        wait_text(tab, "#types", "浏览")
        assert tab.evaluate("document.documentElement.lang") == "zh-CN"
        tab.locator("#lang").click()
        wait_text(tab, "h1", "Clicktide live")
        wait_text(tab, "#types", "views")
        tab.reload()
        wait_text(tab, "h1", "Clicktide live")
        untranslated = "Object.keys(WORDS.en).filter((k) => !(k in WORDS.zh)).concat(Object.keys(WORDS.zh).filter((k) => !(k in WORDS.en)))"
        assert tab.evaluate(untranslated) == []


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_on_a_phone_nothing_is_wider_than_the_screen(page, lang):
    with browser(width=360, height=740) as tab:
        tab.goto(page.url + f"?lang={lang}")
        wait_text(tab, "#gmv", "¥1,234.56")
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_with_the_service_gone_it_says_so_and_comes_back_by_itself(page):
    with browser() as tab:
        tab.goto(page.url)
        wait_text(tab, "#gmv", "¥1,234.56")
        page.kill()
        wait_text(tab, "#banner", "Not connected")
        assert tab.locator("body.stale").count() == 1
        assert "1,234.56" in tab.locator("#gmv").text_content()
        page.start()
        tab.locator("#banner").wait_for(state="hidden")
        assert tab.locator("body.stale").count() == 0


@pytest.mark.parametrize("page", [0.5], indirect=True)
def test_with_redis_hanging_it_shows_the_last_good_snapshot_marked_as_stale(page):
    with browser() as tab:
        tab.goto(page.url)
        wait_text(tab, "#gmv", "¥1,234.56")
        page.server.pause()
        wait_text(tab, "#banner", "Degraded: redis")
        wait_text(tab, "#banner", "Stale")
        assert "1,234.56" in tab.locator("#gmv").text_content()
        page.server.resume()
        tab.locator("#banner").wait_for(state="hidden")


def test_the_documentation_page_lists_every_path_and_tries_one(page):
    with browser() as tab:
        tab.goto(page.url + "docs")
        tab.wait_for_selector("details")
        text = tab.locator("main").text_content()
        for path in ("/v1/events", "/v1/metrics/gmv", "/v1/users/{user_id}/timeline", "/v1/status"):
            assert path in text
        tab.locator("summary", has_text="/v1/metrics/events").click()
        tab.locator("details[open] button").click()
        wait_text(tab, "details[open] div pre", '"view": 1')


def test_with_keys_it_asks_for_a_read_key_and_keeps_it_in_the_tab(page, tmp_path):
    token = keyfile.new_token("read", "abcdefgh")
    key = Key("abcdefgh", "board", "read", 0, (Secret(keyfile.digest(token), 0),))
    keyfile.write(tmp_path / "keys.json", Keys(keys=(key,)))
    page.kill()
    page.given["keys.file"] = str(tmp_path / "keys.json")
    page.start()
    with browser() as tab:
        tab.goto(page.url)
        tab.wait_for_selector("#keyform:not([hidden])")
        wait_text(tab, "#banner", "read key")
        tab.fill("#key", token)
        tab.click("#keyform button")
        wait_text(tab, "#gmv", "1,234.56")
        tab.reload()
        wait_text(tab, "#gmv", "1,234.56")
    with browser() as tab:
        tab.goto(f"{page.url}#key={token}")
        wait_text(tab, "#gmv", "1,234.56")
        assert token not in tab.url
