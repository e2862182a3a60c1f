"""Orders to Nimbus over Thrift: `storm rebalance` without a JVM."""

from __future__ import annotations

from collections.abc import Mapping

from deploy.stack.nimbus import nimbus
from deploy.stack.settings import LOOPBACK

_TIMEOUT_S = 3.0
_WAIT_S = 1  # how long the topology rests before it moves


def rebalance(port: int, topology: str, executors: Mapping[str, int], workers: int) -> bool:
    """Order it; whether Nimbus has taken the order. The workers are started anew then, some seconds later."""
    from streamparse.thrift import storm_thrift

    options = storm_thrift.RebalanceOptions(
        wait_secs=_WAIT_S, num_workers=workers, num_executors=dict(executors)
    )
    try:
        with nimbus(LOOPBACK, port, _TIMEOUT_S) as service:
            service.rebalance(topology, options)
    except OSError:
        return False
    return True
