"""Orders to Nimbus over Thrift: `storm rebalance` without a JVM."""

from __future__ import annotations

from collections.abc import Mapping

from deploy.stack.settings import LOOPBACK

_TIMEOUT_MS = 3000
_WAIT_S = 1  # how long the topology rests before it moves


def rebalance(port: int, topology: str, executors: Mapping[str, int], workers: int) -> bool:
    """Order it; whether Nimbus has taken the order. The workers are started anew then, some seconds later."""
    from streamparse.thrift import Nimbus, storm_thrift
    from thriftpy2.protocol import TBinaryProtocolFactory
    from thriftpy2.rpc import make_client
    from thriftpy2.thrift import TException
    from thriftpy2.transport import TFramedTransportFactory

    options = storm_thrift.RebalanceOptions(
        wait_secs=_WAIT_S, num_workers=workers, num_executors=dict(executors)
    )
    try:
        client = make_client(
            Nimbus,
            host=LOOPBACK,
            port=port,
            proto_factory=TBinaryProtocolFactory(),  # type: ignore[no-untyped-call]
            trans_factory=TFramedTransportFactory(),
            timeout=_TIMEOUT_MS,
        )
    except (TException, OSError):
        return False
    try:
        client.rebalance(topology, options)
    except (TException, OSError):
        return False
    finally:
        client.close()
    return True
