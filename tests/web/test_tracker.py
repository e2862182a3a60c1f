"""The tracker in a real browser, on a page of another origin, with the whole embedded system behind it."""

from __future__ import annotations

import http.client
import http.server
import json
import secrets
import statistics
import threading
import time
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from chromium import chromium
from integration.demo.demo_process import demo

pytestmark = [pytest.mark.web, pytest.mark.embedded, pytest.mark.timeout(240)]
RUN = secrets.token_hex(3)  # so that users are new, whatever the system has seen
MARK_MS, BOUND_MS = 300, 10_000  # the mark is for an idle machine, the bound for any
PAGE = """<!doctype html><title>Shop</title>
<script>window.tide = window.tide || function () { (tide.q = tide.q || []).push(arguments) }; const RUN = '%(run)s'; %(calls)s</script>
<script async src="%(url)s/tide.js" %(attributes)s></script>
<button id="cart" data-tide="cart" data-tide-item="i1" data-tide-category="c1" data-tide-quantity="2"
  data-tide-colour="red" data-tide-merchant=""><b>into the cart</b></button>
<button id="plain" data-tide>click</button>
<button id="fav" data-tide="favorite" data-tide-item="i9">favour</button>
<a id="out" href="about:blank" data-tide="click" data-tide-item="left">leave</a>
<a id="other" href="/other?token=secret#part">another page</a>
"""


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    """The URL of a demo without traffic."""
    with demo(tmp_path_factory.mktemp("demo"), "--no-traffic") as running:
        yield f"http://127.0.0.1:{running.record()['port']}"


@pytest.fixture
def shop(system):
    """A web shop on another origin; `attributes` and `calls` go into its pages."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = (PAGE % shop.words).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    shop = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    shop.words = {"run": RUN, "url": system, "attributes": "", "calls": ""}
    shop.url = f"http://localhost:{shop.server_address[1]}/shop"
    thread = threading.Thread(target=shop.serve_forever, args=(0.02,))
    thread.start()
    yield shop
    shop.shutdown()
    thread.join()
    shop.server_close()


@contextmanager
def browser(folder, **preferences):
    """A tab of a new profile with these preferences; fails at the end if the page saw an error."""
    program = chromium()
    from playwright.sync_api import sync_playwright

    home = folder / "profile"
    (home / "Default").mkdir(parents=True)
    (home / "Default" / "Preferences").write_text(json.dumps(preferences), "utf-8")
    with sync_playwright() as p:
        context = p.chromium.launch_persistent_context(
            str(home), executable_path=program, args=["--no-sandbox"], headless=True
        )
        context.set_default_timeout(30_000)
        tab = context.pages[0]
        errors: list[str] = []
        context.on("weberror", lambda e: errors.append(str(e.error)))
        yield tab
        context.close()
    assert errors == []


class Api:
    """The query service over one kept connection."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)

    def close(self):
        self._connection.close()

    def get(self, path):
        self._connection.request("GET", path)
        answer = self._connection.getresponse()
        return json.loads(answer.read())

    def timeline(self, user):
        """Of a user of this run, or of a visitor without a name."""
        user = user if user.startswith("a-") else RUN + user
        return self.get(f"/v1/users/{user}/timeline?limit=200").get("events", [])

    def total(self, kind):
        time.sleep(0.11)  # http.share_ms: an answer that others were given is not asked for anew
        found = wait_for(lambda: self.get("/v1/metrics/events").get("totals"), "an answer")
        return found.get(kind, 0)


@pytest.fixture
def api(system):
    api = Api(system)
    yield api
    api.close()


def wait_for(look, what):
    deadline = time.monotonic() + 40
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)
    return found


def kept(tab, what="e:"):
    """The items of the tracker's that the browser keeps."""
    return tab.evaluate(
        "(p) => Object.keys(localStorage).filter((k) => k.startsWith('tide:' + p)).sort()", what
    )


def started(tab):
    tab.wait_for_function("window.tide && tide.ready")


def test_a_page_clicked_through_is_in_the_users_timeline(shop, api, tmp_path):
    shop.words["calls"] = (
        "tide('user', RUN + 'u-1');"
        "if (location.search.includes('mail')) tide('track', 'favorite', { item_id: 'i7', price: { cents: 5 } })"
    )
    with browser(tmp_path) as tab:
        tab.goto(shop.url + "?mail=someone@example.org")
        started(tab)
        tab.click("#cart b")
        tab.click("#plain")
        tab.evaluate("history.pushState({}, '', '/shop/details')")
        tab.click("#other")
        started(tab)
        wait_for(lambda: len(api.timeline("u-1")) == 6, "six events")
        wait_for(lambda: kept(tab) == [], "an empty queue")
        anonymous = tab.evaluate("localStorage['tide:a']")
    found = sorted(api.timeline("u-1"), key=lambda e: e["occurred_at"])
    assert [e["type"] for e in found] == ["favorite", "view", "cart", "click", "view", "view"]
    own, first, cart, _, details, other = found
    origin = shop.url.removesuffix("/shop")
    assert [e["page"] for e in (first, details, other)] == [
        shop.url,
        f"{origin}/shop/details",
        f"{origin}/other",
    ]
    assert own["item_id"] == "i7"
    assert own["attributes"] == {"price": {"cents": 5}}
    assert (cart["item_id"], cart["category_id"], cart["quantity"]) == ("i1", "c1", 2)
    assert cart["attributes"] == {"colour": "red"}
    assert len({e["session_id"] for e in found}) == 1
    assert {e["anonymous_id"] for e in found} == {anonymous}
    assert {e["channel"] for e in found} == {"web"}


def test_upload_to_timeline(shop, api, tmp_path, capsys):
    took = []
    with browser(tmp_path) as tab:
        shop.words["calls"] = "tide('user', RUN + 'u-fast')"
        tab.goto(shop.url)
        started(tab)
        wait_for(lambda: len(api.timeline("u-fast")) == 1, "the page view")
        for n in range(2, 12):
            with tab.expect_request("**/v1/events*") as sent:
                tab.click("#plain")
            until = time.monotonic() + 60
            while len(api.timeline("u-fast")) < n:
                assert time.monotonic() < until
                time.sleep(0.002)
            seen = time.time() * 1000
            sent.value.response()
            took.append(seen - sent.value.timing["startTime"])
    took.sort()
    with capsys.disabled():
        print(
            f"\nupload to timeline, {len(took)} clicks: median {statistics.median(took):.0f} ms,"
            f" worst {took[-1]:.0f} ms (the mark: {MARK_MS})"
        )
    assert 0 < took[0] <= took[-1] < BOUND_MS


def test_visitors_without_a_name_and_users_one_after_the_other(shop, api, tmp_path):
    with browser(tmp_path) as tab:
        tab.goto(shop.url)
        started(tab)
        visitor = tab.evaluate("localStorage['tide:a']")
        assert visitor.startswith("a-")
        wait_for(lambda: len(api.timeline(visitor)) == 1, "the visitor's view")
        tab.evaluate("tide('user', RUN + 4711)")
        tab.click("#plain")
        tab.reload()
        started(tab)
        wait_for(lambda: len(api.timeline("4711")) == 2, "click and view of the same, now known")
        assert {e["anonymous_id"] for e in api.timeline("4711")} == {visitor}
        tab.evaluate("tide('user', null)")
        tab.click("#plain")
        after = tab.evaluate("localStorage['tide:a']")
        assert after != visitor
        wait_for(lambda: len(api.timeline(after)) == 1, "somebody new")
        sessions = [api.timeline(who)[0]["session_id"] for who in (visitor, "4711", after)]
        assert sessions[0] == sessions[1] != sessions[2]


def test_a_session_ends_with_ten_quiet_minutes(shop, api, tmp_path):
    with browser(tmp_path) as tab:
        tab.goto(shop.url)
        started(tab)
        click = (
            "() => { document.querySelector('#plain').click(); return localStorage['tide:s'].split(' ')[0] }"
        )
        age = "(ms) => { const [id, at] = localStorage['tide:s'].split(' '); localStorage['tide:s'] = id + ' ' + (at - ms) }"
        first = tab.evaluate(click)
        tab.evaluate(age, 590_000)
        assert tab.evaluate(click) == first
        tab.evaluate(age, 610_000)
        assert tab.evaluate(click) != first
        # Other tests count what there is: nothing comes later.
        visitor = tab.evaluate("localStorage['tide:a']")
        wait_for(lambda: len(api.timeline(visitor)) == 4, "the view and the clicks")


def test_what_is_clicked_offline_is_kept_over_a_reload_and_delivered_once(shop, api, tmp_path):
    shop.words["calls"] = "tide('user', RUN + 'u-off')"
    before = api.total("favorite")
    with browser(tmp_path) as tab:
        tab.goto(shop.url)
        started(tab)
        wait_for(lambda: kept(tab) == [], "the answer for the page view")
        tab.context.set_offline(True)
        for _ in range(3):
            tab.click("#fav")
        names = kept(tab)
        assert len(names) == 3
        # Online again, but the collector does not answer.
        tab.context.route("**/v1/events*", lambda route: route.abort())
        tab.context.set_offline(False)
        tab.reload()
        started(tab)
        assert set(names) < set(kept(tab))
        tab.context.unroute("**/v1/events*")
        wait_for(lambda: kept(tab) == [], "an empty queue")
    wait_for(lambda: len(api.timeline("u-off")) == 5, "two views and three favours")
    ids = [e["event_id"] for e in api.timeline("u-off") if e["type"] == "favorite"]
    assert sorted("tide:e:" + i for i in ids) == names
    assert api.total("favorite") == before + 3


def test_an_answer_that_is_lost_makes_no_double(shop, api, tmp_path):
    shop.words["calls"] = "tide('user', RUN + 'u-lost')"
    before = api.total("favorite")
    bodies: list[list[str]] = []

    def lose(route):
        events = json.loads(route.request.post_data)
        bodies.append([e["event_id"] for e in events if e["type"] == "favorite"])
        if len(bodies) < 3:
            route.fetch()
            route.abort()
        else:
            route.continue_()

    with browser(tmp_path) as tab:
        tab.goto(shop.url)
        started(tab)
        wait_for(lambda: kept(tab) == [], "the answer for the page view")
        tab.context.route("**/v1/events*", lose)
        tab.click("#fav")
        wait_for(lambda: kept(tab) == [], "an empty queue")
    assert len(bodies) == 3
    assert bodies[0] == bodies[1] == bodies[2]
    wait_for(lambda: api.total("favorite") == before + 1, "the count")
    assert len(api.timeline("u-lost")) == 2


def test_what_is_clicked_on_the_way_out_is_beaconed(shop, api, tmp_path):
    shop.words["calls"] = "tide('user', RUN + 'u-out')"
    with browser(tmp_path) as tab:
        tab.goto(shop.url)
        started(tab)
        wait_for(lambda: kept(tab) == [], "the answer for the page view")
        # Only a beacon gets through.
        tab.evaluate("() => { window.fetch = () => Promise.reject(new TypeError('away')) }")
        tab.click("#out")
        tab.wait_for_url("about:blank")
        wait_for(lambda: len(api.timeline("u-out")) == 2, "the last click")
        assert api.timeline("u-out")[0]["item_id"] == "left"
        # Nobody heard the answer, so the next page sends it again, under the same id.
        tab.goto(shop.url)
        started(tab)
        wait_for(lambda: kept(tab) == [], "an empty queue")
        wait_for(lambda: len(api.timeline("u-out")) == 3, "one more view")


@pytest.mark.parametrize("signal", ["do-not-track", "global privacy control"])
def test_who_does_not_want_to_be_tracked_is_not(shop, tmp_path, signal):
    preferences = {"enable_do_not_track": True} if signal == "do-not-track" else {}
    with browser(tmp_path, **preferences) as tab:
        if signal == "do-not-track":
            tab.goto(shop.url)
            assert tab.evaluate("navigator.doNotTrack") == "1"
        else:
            tab.add_init_script(
                "Object.defineProperty(Navigator.prototype, 'globalPrivacyControl', { get: () => true })"
            )
        sent: list[str] = []
        tab.context.on("request", lambda r: sent.append(r.url))
        tab.evaluate("try { localStorage['tide:a'] = 'left from before' } catch (e) {}")
        tab.goto(shop.url)
        tab.wait_for_function("window.tide && !('q' in tide)")
        tab.click("#cart")
        tab.evaluate("tide('track', 'view', {})")
        tab.wait_for_timeout(600)  # longer than a batch waits
        assert kept(tab, "") == []
        tab.goto("about:blank")
    assert [url for url in sent if "/v1/" in url] == []
    assert any(url.endswith("/tide.js") for url in sent)


def test_with_storage_blocked_it_works_from_memory(shop, api, tmp_path):
    shop.words["calls"] = "tide('user', RUN + 'u-blocked')"
    with browser(tmp_path, profile={"default_content_setting_values": {"cookies": 2}}) as tab:
        tab.goto(shop.url)
        assert tab.evaluate("(() => { try { localStorage; return '' } catch (e) { return e.name } })()")
        started(tab)
        tab.click("#cart")
        tab.click("#plain")
        wait_for(lambda: len(api.timeline("u-blocked")) == 3, "a view and two clicks")
        assert len({e["session_id"] for e in api.timeline("u-blocked")}) == 1


def test_the_queue_is_bounded_and_refused_events_leave_it(shop, api, tmp_path):
    shop.words.update(attributes='data-key="k 1" data-views="off"', calls="tide('user', RUN + 'u-many')")
    before = api.total("view")
    with browser(tmp_path) as tab:
        keys: list[str] = []

        def away(route):
            keys.append(route.request.url.partition("?")[2])
            route.fulfill(status=503, headers={"Retry-After": "1"})

        tab.context.route("**/v1/events*", away)
        tab.goto(shop.url)
        started(tab)
        tab.evaluate("for (let i = 0; i < 700; i++) tide('track', 'view', { item_id: 'n' + i })")
        tab.evaluate("tide('track', 'no such type'); tide('nonsense'); tide('track', 'view', { f: 1n })")
        assert len(kept(tab)) == 500
        wait_for(lambda: kept(tab) and keys, "a request")
        assert set(keys) == {"key=k+1"}
        tab.context.unroute("**/v1/events*")
        wait_for(lambda: kept(tab) == [], "an empty queue")
    wait_for(lambda: api.total("view") == before + 499, "all but the oldest, and the one that was refused")
    assert "n699" in [e["item_id"] for e in api.timeline("u-many")[:5]]
