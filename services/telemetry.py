"""Metrics of the services, in one registry, as Prometheus reads them.

Labels are bounded: routes, methods, statuses, codes and store names; never an id of a user or an event.
"""

from __future__ import annotations

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.process_collector import ProcessCollector
from starlette.requests import Request
from starlette.responses import Response

_SECONDS = (0.001, 0.002, 0.004, 0.006, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class Telemetry:
    """One process's metrics. Made once a process; tests make their own."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "clicktide_http_requests", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "clicktide_http_request_seconds",
            "From the request's head to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.accepted = Counter(
            "clicktide_collector_events_accepted", "Events acknowledged by the broker.", registry=registry
        )
        self.rejected = Counter(
            "clicktide_collector_events_rejected", "Events refused, by code.", ["code"], registry=registry
        )
        self.turned_away = Counter(
            "clicktide_collector_events_turned_away",
            "Events answered with 429 or 503: not accepted, the client keeps them.",
            ["code"],
            registry=registry,
        )
        self.queued = Gauge(
            "clicktide_collector_queued_events", "Events that wait for the broker.", registry=registry
        )
        self.batch = Histogram(
            "clicktide_collector_batch_events",
            "Events written by one call to the broker.",
            buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000),
            registry=registry,
        )
        self.send_seconds = Histogram(
            "clicktide_collector_send_seconds",
            "How long the broker took to acknowledge a batch.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.log_up = Gauge(
            "clicktide_collector_log_up", "1 when the broker answered last time.", registry=registry
        )
        self.store_failures = Counter(
            "clicktide_query_store_failures",
            "Reads that a store did not answer.",
            ["store"],
            registry=registry,
        )
        self.keys_good = Gauge(
            "clicktide_keys_file_good",
            "1 while the keys file is as it was read last time, 0 when it cannot be read any more.",
            registry=registry,
        )
        self.live_clients = Gauge(
            "clicktide_live_clients", "Open connections to the live feed.", registry=registry
        )

    async def handler(self, _request: Request) -> Response:
        return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)
