"""Nimbus over Thrift: one connection, for those who ask it or order something, without a JVM."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def nimbus(host: str, port: int, seconds: float) -> Iterator[Any]:
    """Storm's own Nimbus service; `seconds` bounds each call. Raises `OSError` when it does not answer or breaks off, whatever
    Thrift calls that."""
    from streamparse.thrift import Nimbus as Service
    from thriftpy2.protocol import TBinaryProtocolFactory
    from thriftpy2.rpc import make_client
    from thriftpy2.thrift import TException
    from thriftpy2.transport import TFramedTransportFactory

    try:
        client = make_client(
            Service,
            host=host,
            port=port,
            proto_factory=TBinaryProtocolFactory(),  # type: ignore[no-untyped-call]
            trans_factory=TFramedTransportFactory(),
            timeout=int(seconds * 1000),
        )
        try:
            yield client
        finally:
            client.close()
    except TException as e:
        raise ConnectionError(f"Nimbus at {host}:{port}: {e}") from e
