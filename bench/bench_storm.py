"""Storm's own numbers of a topology, as Nimbus tells them: for holding against those that are measured from outside.

Storm times one tuple in twenty, and a tuple is a slice. Its windows are 10 minutes, 3 hours, a day and all time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from clicktide.errors import ClicktideError
from deploy.stack.nimbus import nimbus

WINDOWS = {"10m": "600", "3h": "10800", "1d": "86400", "all": ":all-time"}
_TIMEOUT_S = 5.0


class Component(NamedTuple):
    """A spout or bolt. Latencies in ms, None where Storm has none; `capacity` is the share of the window spent in `execute`."""

    name: str
    acked: int
    failed: int
    complete_ms: float | None
    execute_ms: float | None
    process_ms: float | None
    capacity: float | None

    def line(self) -> str:
        parts = [f"{self.acked} acked, {self.failed} failed"]
        if self.complete_ms is not None:
            parts.append(f"complete latency {self.complete_ms:.1f} ms")
        if self.execute_ms is not None:
            parts.append(
                f"execute latency {self.execute_ms:.2f} ms, process latency {self.process_ms:.1f} ms"
            )
            parts.append(f"capacity {self.capacity:.3f}")
        return f"{self.name}: {', '.join(parts)}"


def numbers(host: str, port: int, topology: str, window: str) -> list[Component]:
    """The components of a running topology, spouts first. Raises `ClicktideError` when Nimbus does not answer or has none
    of that name."""
    try:
        with nimbus(host, port, _TIMEOUT_S) as service:
            running = {t.name: t.id for t in service.getClusterInfo().topologies}
            if topology not in running:
                raise ClicktideError(
                    f"topology {topology} does not run at {host}:{port}; running: {', '.join(running)}"
                )
            page = service.getTopologyPageInfo(running[topology], WINDOWS[window], False)
    except OSError as e:
        raise ClicktideError(f"Nimbus at {host}:{port} does not answer: {e}") from e
    return [*_spouts(page.id_to_spout_agg_stats or {}), *_bolts(page.id_to_bolt_agg_stats or {})]


def _spouts(found: dict[str, Any]) -> Iterator[Component]:
    for name, stats in sorted(found.items()):
        common, spout = stats.common_stats, stats.specific_stats.spout
        yield Component(
            name, common.acked or 0, common.failed or 0, spout.complete_latency_ms, None, None, None
        )


def _bolts(found: dict[str, Any]) -> Iterator[Component]:
    for name, stats in sorted(found.items()):
        common, bolt = stats.common_stats, stats.specific_stats.bolt
        yield Component(
            name,
            common.acked or 0,
            common.failed or 0,
            None,
            bolt.execute_latency_ms or 0.0,
            bolt.process_latency_ms or 0.0,
            bolt.capacity or 0.0,
        )
