"""The catalogue: every route of the services, what it takes and what it answers."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from clicktide.event import Event
from services.collector import tracker
from services.collector.upload import Upload
from services.dashboard.live import Live
from services.desk import orders
from services.desk.api import DeskApi
from services.desk.erase import EraseApi
from services.operations import Handler, Operation, Soon, answer
from services.pages import docs_page, live_page
from services.query import shapes
from services.query.lookups import LookupsApi
from services.query.metrics import MetricsApi, RankedQuery
from services.query.ranges import RangeQuery
from services.query.status import StatusApi
from services.query.users import NoQuery, PageQuery, TimelineQuery, UsersApi

CORS = frozenset({"/v1/events"})
_METRIC_PROBLEMS = ("bad_parameter", "store_unavailable")


class Accepted(msgspec.Struct):
    accepted: int


class Result(msgspec.Struct):
    index: int
    event_id: str | None
    status: str
    code: str | None
    detail: str | None


class Partly(msgspec.Struct):
    accepted: int
    rejected: int
    results: list[Result]


class Healthy(msgspec.Struct):
    status: str


Upload_ = Event | list[Event]


def collector(upload: Upload) -> list[Operation]:
    return [
        Operation(
            "POST",
            "/v1/events",
            "Take one event, an array, or one event a line; gzip or zstd. Answers once the broker has them.",
            "collector",
            upload.handler,
            scope="write",
            body=Upload_,
            takes=("application/json", "application/x-ndjson", "text/plain"),
            answers={202: Accepted, 207: Partly},
            problems=(
                "all_rejected",
                "bad_body",
                "body_timeout",
                "too_large",
                "too_many_events",
                "unsupported_media_type",
                "unsupported_encoding",
                "rate_limited",
                "user_rate_limited",
                "overloaded",
                "log_unavailable",
                "stopping",
            ),
        ),
        tracker.operation(),
    ]


def query(metrics: MetricsApi, users: UsersApi, lookups: LookupsApi, status: StatusApi) -> list[Operation]:
    def metric(
        path: str,
        summary: str,
        handler: Handler,
        kind: type[msgspec.Struct] = RangeQuery,
        answer: type[msgspec.Struct] = shapes.Metrics,
    ) -> Operation:
        return Operation(
            "GET",
            path,
            summary,
            "metrics",
            handler,
            scope="read",
            query=kind,
            answers={200: answer, 304: None},
            problems=_METRIC_PROBLEMS,
        )

    # The router tries them in this order: those that are asked most come first.
    return [
        *of_users(users),
        metric("/v1/metrics/events", "Events by type.", metrics.events),
        metric("/v1/metrics/genders", "Events by gender.", metrics.genders),
        metric("/v1/metrics/gmv", "Pay amounts, refunds, net, pays, orders and payers.", metrics.gmv),
        metric("/api/realtime-gmv", "The same as /v1/metrics/gmv.", metrics.gmv),
        metric(
            "/v1/metrics/categories",
            "Pay amounts by category, the largest first.",
            metrics.categories,
            RankedQuery,
        ),
        metric(
            "/v1/metrics/provinces", "Events by province, the most first.", metrics.provinces, RankedQuery
        ),
        metric("/v1/metrics/uv", "Distinct users and payers.", metrics.uv),
        metric(
            "/v1/metrics/funnel",
            "Views, clicks, carts, orders and pays, each as a share of the step before; of events, not of users.",
            metrics.funnel,
            answer=shapes.Funnel,
        ),
        Operation(
            "GET",
            "/v1/orders/{order_id}",
            "An order's state and history.",
            "lookups",
            lookups.order,
            scope="read",
            path_parameters={"order_id": "The order."},
            answers={200: shapes.OrderAnswer},
            problems=("bad_parameter", "unknown_order", "store_unavailable"),
        ),
        Operation(
            "GET",
            "/v1/events/{event_id}",
            "Where an event is: stored, waiting, retrying, dead; 404 when nothing shows it.",
            "lookups",
            lookups.event,
            scope="read",
            path_parameters={"event_id": "The event."},
            answers={200: shapes.Where},
            problems=("bad_parameter", "unknown_event", "erased_event", "store_unavailable"),
        ),
        Operation(
            "GET",
            "/v1/status",
            "How the pipeline is.",
            "operations",
            status.status,
            scope="read",
            answers={200: shapes.Status},
        ),
    ]


def of_users(users: UsersApi) -> list[Operation]:
    def of_user(
        name: str,
        summary: str,
        handler: Handler,
        kind: type[msgspec.Struct],
        answer: type[msgspec.Struct],
        *problems: str,
        soon: Soon | None = None,
    ) -> Operation:
        return Operation(
            "GET",
            "/v1/users/{user_id}/" + name,
            summary,
            "users",
            handler,
            scope="read",
            query=kind,
            path_parameters={"user_id": "The user."},
            answers={200: answer},
            problems=("bad_parameter", *problems, "unknown_user", "erased_user", "store_unavailable"),
            soon=soon,
        )

    return [
        of_user(
            "timeline",
            "A user's events, newest first, by pages.",
            users.timeline,
            TimelineQuery,
            shapes.Timeline,
            "bad_cursor",
            soon=users.timeline_soon,
        ),
        of_user(
            "profile",
            "What a user's events come to.",
            users.profile,
            NoQuery,
            shapes.Profile,
            soon=users.profile_soon,
        ),
        of_user(
            "sessions",
            "A user's sessions, the latest first, by pages; ten minutes without an event end one.",
            users.sessions,
            PageQuery,
            shapes.Sessions,
            "bad_cursor",
        ),
        of_user(
            "purchases",
            "A user's orders, pays and refunds, the latest first, by pages.",
            users.purchases,
            PageQuery,
            shapes.Purchases,
            "bad_cursor",
        ),
    ]


def desk(api: DeskApi) -> list[Operation]:
    common = ("bad_parameter", "store_unavailable")
    order = (
        *common,
        "bad_body",
        "body_timeout",
        "too_large",
        "unsupported_media_type",
        "unsupported_encoding",
    )
    return [
        Operation(
            "GET",
            "/v1/dead",
            "Dead letters, newest first, by pages; each record and stage once.",
            "desk",
            api.list,
            scope="admin",
            query=orders.ListQuery,
            answers={200: orders.Listed},
            problems=(*common, "bad_cursor"),
        ),
        Operation(
            "POST",
            "/v1/dead/replay",
            "Send dead letters back to the stage that failed; only says what it would do unless dry_run is false.",
            "desk",
            api.replay,
            scope="admin",
            body=orders.ReplayOrder,
            answers={200: orders.Replayed},
            problems=(*order, "unknown_letter", "busy"),
        ),
        Operation(
            "POST",
            "/v1/dead/purge",
            "Remove dead letters for ever; only says how many unless confirm is that number.",
            "desk",
            api.purge,
            scope="admin",
            body=orders.PurgeOrder,
            answers={200: orders.Purged},
            problems=(*order, "unknown_letter", "busy", "not_confirmed"),
        ),
        # Behind the two above, which it would match as well.
        Operation(
            "GET",
            "/v1/dead/{id}",
            "One dead record: its bytes, its headers, and what has become of it so far.",
            "desk",
            api.show,
            scope="admin",
            path_parameters={"id": "topic:partition:offset, as the list shows it."},
            answers={200: orders.Shown},
            problems=(*common, "unknown_letter"),
        ),
    ]


def erasing(api: EraseApi) -> list[Operation]:
    return [
        Operation(
            "DELETE",
            "/v1/users/{user_id}",
            "Erase a user everywhere and for good; whatever comes of the user later is dropped. Takes some seconds.",
            "desk",
            api.erase,
            scope="admin",
            path_parameters={"user_id": "The user."},
            answers={200: orders.Erased},
            problems=("bad_parameter", "busy", "store_unavailable"),
        )
    ]


def dashboard(live: Live) -> list[Operation]:
    return [
        Operation(
            "GET", "/", "The live page.", "pages", live_page, answers={200: str}, media_type="text/html"
        ),
        Operation(
            "GET",
            "/v1/live/snapshot",
            "What WS /v1/live sends each second, once.",
            "pages",
            live.snapshot,
            scope="read",
            answers={200: dict},
            problems=("store_unavailable",),
        ),
    ]


def own(ready: Handler, metrics: Handler, openapi: Handler, *, open_metrics: bool = False) -> list[Operation]:
    async def live(_request: Request) -> Response:
        return answer({"status": "live"})

    return [
        Operation(
            "GET", "/health/live", "Whether the process runs.", "operations", live, answers={200: Healthy}
        ),
        Operation(
            "GET",
            "/health/ready",
            "Whether it can do its work: the collector, once the broker has answered.",
            "operations",
            ready,
            answers={200: Healthy},
            problems=("log_unavailable", "stopping"),
        ),
        Operation(
            "GET",
            "/metrics",
            "Metrics for Prometheus.",
            "operations",
            metrics,
            scope="" if open_metrics else "read",
            answers={200: str},
            media_type="text/plain",
        ),
        Operation("GET", "/openapi.json", "This document.", "pages", openapi, answers={200: dict, 304: None}),
        Operation(
            "GET",
            "/docs",
            "The document as a page.",
            "pages",
            docs_page,
            answers={200: str},
            media_type="text/html",
        ),
    ]
