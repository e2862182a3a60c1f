"""One connection to Redis: time limits on every call, and errors that say what to do.

Promises: no call outlasts `redis.timeout_s` by much, and nothing is retried in here that may not be.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException
from redis.retry import Retry

from clicktide.errors import SettingError, StoreRefused, StoreUnavailable
from clicktide.redisstore.cluster import STORE, Cluster, is_cluster
from clicktide.settings import Settings

OLDEST_MAJOR = 7

# Answers that mean "not now", whatever was asked.
_NOT_NOW = (
    "OOM",
    "LOADING",
    "READONLY",
    "MISCONF",
    "BUSY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "NOREPLICAS",
    "NOAUTH",
    "WRONGPASS",
)


def connect(settings: Settings, timeout_s: float | None = None) -> redis.Redis:
    """A client for `redis.url`; it connects on first use and again after a loss. Answers are bytes.

    For a cluster it is a `Cluster`, which does for single commands what `redis.Redis` does.
    """
    url = settings.text("redis.url")
    timeout = settings.number("redis.timeout_s") if timeout_s is None else timeout_s
    options = tls_options(settings)
    try:
        if is_cluster(url):
            probe_s = settings.number("breaker.probe_s")
            return cast("redis.Redis", Cluster(url, timeout, options, probe_s))
        return redis.Redis.from_url(
            url,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            # One more try at once mends a connection that a restarted server has closed.
            retry=Retry(NoBackoff(), 1),
            **options,
        )
    except ValueError as e:
        raise SettingError(f"setting redis.url: {e}") from e


def tls_options(settings: Settings) -> dict[str, Any]:
    """What redis-py takes for `redis.ca_file`; raises `SettingError` where the URL would go without TLS all the same."""
    ca_file = settings.text("redis.ca_file")
    if not ca_file:
        return {}
    if not settings.text("redis.url").startswith("rediss"):
        raise SettingError("setting redis.ca_file: expected redis.url to be rediss:// or rediss+cluster://")
    if not Path(ca_file).is_file():
        raise SettingError(f"setting redis.ca_file: expected a PEM file, there is none at {ca_file}")
    return {"ssl_ca_certs": ca_file}


@contextmanager
def errors_named() -> Iterator[None]:
    """Turns redis-py's errors into `StoreUnavailable` and `StoreRefused`."""
    try:
        yield
    except redis.ResponseError as e:
        raise named(e) from e
    except (redis.RedisError, RedisClusterException, OSError) as e:
        raise StoreUnavailable(STORE, _one_line(e)) from e


def named(error: Exception) -> StoreUnavailable | StoreRefused:
    """The project's error for one of redis-py's; its own as they are."""
    if isinstance(error, StoreUnavailable | StoreRefused):
        return error
    text = _one_line(error)
    if isinstance(error, redis.ResponseError) and not _not_now(error, text):
        return StoreRefused(STORE, text)
    return StoreUnavailable(STORE, text)


def run_id(client: redis.Redis) -> str:
    """The server's run id (a cluster's: of all masters): it changes when Redis restarts or another server takes over."""
    with errors_named():
        if isinstance(client, Cluster):
            return client.run_id()
        info: Any = client.info("server")
    return str(info["run_id"])


def require_version(client: redis.Redis) -> None:
    """Raises `StoreUnavailable` when the server is older than the scripts need (`EXPIRE … NX` came with 7.0)."""
    with errors_named():
        info: Any = client.info("server")
    version = str(info["redis_version"])
    major = version.split(".", maxsplit=1)[0]
    if not major.isdecimal() or int(major) < OLDEST_MAJOR:
        raise StoreUnavailable(STORE, f"version {version} is too old, {OLDEST_MAJOR}.0 or newer is needed")


def whole_seconds(hours: float) -> int:
    return max(1, math.ceil(hours * 3600))


def _not_now(error: redis.ResponseError, text: str) -> bool:
    kinds = redis.exceptions
    classes = (kinds.BusyLoadingError, kinds.ReadOnlyError, kinds.OutOfMemoryError, kinds.AuthenticationError)
    return isinstance(error, classes) or text.startswith(_NOT_NOW) or any(f" -{c}" in text for c in _NOT_NOW)


def _one_line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300]
