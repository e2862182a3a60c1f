"""Gauges of the pipeline: what `/v1/status` says of it, as Prometheus reads it.

Promises: bounded labels (stores, components, topics); nothing is waited for: the figures are those of the last reading, which
a scrape renews, and what is not known is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from clicktide.read import lag
from services.query.health import Health


class PipelineGauges(Collector):
    """To be collected on the event loop's thread only, as all that `Health` does."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def collect(self) -> Iterable[Metric]:
        look = self._health.known()
        degraded = GaugeMetricFamily(
            "clicktide_degraded", "1 for a store that is away, as far as is known.", labels=["store"]
        )
        for store in self._health.degraded_by(look):
            degraded.add_metric([store], 1)
        yield degraded
        yield _counted(
            "clicktide_breakers_open", "Tasks whose breaker for the store is not closed.", look.breakers
        )
        yield _counted("clicktide_alarms", "Tasks that have raised the alarm.", look.alarms)
        waiting = GaugeMetricFamily(
            "clicktide_waiting_records", "Records not yet done; of dead, all that are kept.", labels=["topic"]
        )
        behind = GaugeMetricFamily(
            "clicktide_lag_seconds", "Age of the oldest record that is not yet done.", labels=["topic"]
        )
        for topic, standings in (look.standings or {}).items():
            waiting.add_metric([topic], sum(s.records for s in standings))
            behind.add_metric([topic], max((lag.lag_seconds(s, look.at) for s in standings), default=0.0))
        yield from (waiting, behind)


def _counted(name: str, text: str, found: Mapping[str, object] | None) -> GaugeMetricFamily:
    """`topology.component:task/what` summed over the tasks."""
    family = GaugeMetricFamily(name, text, labels=["component", "what"])
    tasks: Counter[tuple[str, str]] = Counter()
    for place in found or {}:
        task, _, what = place.partition("/")
        tasks[task.partition(":")[0], what] += 1
    for labels, count in tasks.items():
        family.add_metric(labels, count)
    return family
