"""A Redis Cluster as the store needs it: many shards' commands at once, each node failing for its own shards only.

Promises: a command goes to the node that has its slot now (MOVED is followed, and a node that is away makes the table be read
anew); a slot that is just being handed over is "not now", never half here and half there; a node that keeps failing
costs its time-out once a probe, not once a slice; nothing is sent twice that may have arrived, except as its caller says.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.crc import key_slot
from redis.exceptions import AskError, MovedError, NoScriptError, RedisClusterException
from redis.retry import Retry

from clicktide.breaker import Breakers
from clicktide.errors import ClicktideError, SettingError, StoreUnavailable

STORE = "redis"
SLOTS = 16384
_SCHEMES = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
# A slot may have moved twice since the table was read; more often is a cluster that has not settled.
ROUNDS = 4
_REFRESH_EVERY_S = 0.5
_FAILURES_TO_OPEN = 2

Command = tuple[Any, ...]
Node: Any = ClusterNode  # redis-py types only half of it


class PartAway(StoreUnavailable):
    """One node of the cluster, or one slot, cannot be had just now: its shards wait, the others go on."""


def is_cluster(url: str) -> bool:
    return url.partition("://")[0] in _SCHEMES


def parts_of(url: str) -> tuple[str, list[tuple[str, int]]]:
    """(a URL of the first node that redis-py reads, the other nodes) of `redis+cluster://[user:password@]host:port,…`.

    Raises `SettingError`.
    """
    scheme, netloc, path, query, _ = urlsplit(url)
    who, at, hosts = netloc.rpartition("@")
    nodes = []
    for host in hosts.split(","):
        name, colon, port = host.rpartition(":")
        if not colon:
            name, port = host, "6379"
        if not name or not port.isdecimal() or not 0 < int(port) < 65536:
            raise SettingError(f"setting redis.url: expected host:port of each node, got {host!r}")
        nodes.append((name.strip("[]"), int(port)))
    if path.strip("/") not in ("", "0"):
        raise SettingError("setting redis.url: a Redis Cluster has no databases but 0")
    first = hosts.split(",")[0]
    return urlunsplit((_SCHEMES[scheme], f"{who}{at}{first}", "", query, "")), nodes[1:]


class Cluster:
    """Stands where a `redis.Redis` stands: attributes that are not here are redis-py's own cluster client's, which routes
    single commands. Connects on first use. Not for several threads."""

    def __init__(self, url: str, timeout_s: float, options: dict[str, Any], probe_s: float = 1.0) -> None:
        self._first, self._others = parts_of(url)
        self._options = {**options, "socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
        self._breakers = Breakers(time.monotonic, _FAILURES_TO_OPEN, probe_s)
        self._made: Any = None
        self._refreshed_at = float("-inf")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.client(), name)

    def client(self) -> Any:
        """redis-py's client; raises what it raises when no node answers."""
        if self._made is None:
            self._made = redis.RedisCluster.from_url(
                self._first,
                startup_nodes=[Node(host, port) for host, port in self._others],
                # A part that is away must not take the rest with it.
                require_full_coverage=False,
                retry=Retry(NoBackoff(), 1),
                **self._options,
            )
        return self._made

    def close(self) -> None:
        if self._made is not None:
            self._made.close()
            self._made = None

    def send(
        self, calls: Sequence[tuple[str, Command]], load: Callable[[redis.Redis], None] | None = None
    ) -> list[Any]:
        """Each command to the node of its key; the answers in order, an exception where there is none.

        `load(node)` brings the scripts to a node that answers NOSCRIPT. Raises only when no node at all can be asked.
        """
        client = self.client()
        answers: list[Any] = [None] * len(calls)
        waiting = list(range(len(calls)))
        for _ in range(ROUNDS):
            by_node: defaultdict[str, list[int]] = defaultdict(list)
            nodes: dict[str, Any] = {}
            for i in waiting:
                node = self._node_of(client, calls[i][0])
                if node is None:
                    answers[i] = PartAway(STORE, "no node of the cluster has this slot")
                else:
                    by_node[node.name].append(i)
                    nodes[node.name] = node
            self._ask(nodes, by_node, calls, answers)
            waiting = self._settled(client, nodes, by_node, answers, load)
            if not waiting:
                break
        return [as_part(a) if isinstance(a, Exception) else a for a in answers]

    def run_id(self) -> str:
        """The run ids of all masters as one text: it changes when any of them restarts or is replaced.

        Raises `StoreUnavailable` unless every slot has a master that answers and holds itself part of the cluster: what a
        master that is away acknowledged may be lost, and nobody can say yet.
        """
        client = self.client()
        masters = self._masters_now(client)
        found = []
        for host, port in masters:
            node = client.nodes_manager.get_node(host=host, port=port)
            if node is None or node.redis_connection is None:
                # The table is older than the cluster; the next look will have it.
                self._refresh(client)
                raise PartAway(STORE, f"{host}:{port} is new in the cluster")
            try:
                server: Any = node.redis_connection.info("server")
                state = dict(_lines(node.redis_connection.execute_command("CLUSTER INFO")))
            except (redis.RedisError, OSError) as e:
                self._refresh(client)
                raise PartAway(STORE, f"{node.name}: {e}") from e
            if state.get("cluster_state") != "ok":
                raise PartAway(STORE, f"{node.name} says cluster_state:{state.get('cluster_state')}")
            found.append(str(server["run_id"]))
        return ",".join(sorted(found))

    def _masters_now(self, client: Any) -> list[tuple[str, int]]:
        """Host and port of every master that has slots, from the first node that answers, not from the table."""
        error: Exception | None = None
        for node in list(client.get_nodes()):
            try:
                spans: Any = node.redis_connection.execute_command("CLUSTER SLOTS")
            except (redis.RedisError, OSError) as e:
                error = e
                continue
            covered = sum(int(span[1]) - int(span[0]) + 1 for span in spans)
            if covered < SLOTS:
                raise PartAway(STORE, f"{SLOTS - covered} of {SLOTS} slots have no master")
            return sorted({(_text(span[2][0]) or node.host, int(span[2][1])) for span in spans})
        self.close()  # and begin again from the URL
        raise StoreUnavailable(STORE, f"no node of the cluster answers: {error}")

    def _node_of(self, client: Any, key: str) -> Any:
        try:
            node: Any = client.nodes_manager.get_node_from_slot(key_slot(key.encode()))
        except RedisClusterException:
            self._refresh(client)
            return None
        return node

    def _ask(
        self,
        nodes: dict[str, Any],
        by_node: dict[str, list[int]],
        calls: Sequence[tuple[str, Command]],
        answers: list[Any],
    ) -> None:
        """Write to all nodes first, then read: they work at the same time."""
        written: list[tuple[str, Any]] = []
        for name, its in by_node.items():
            if not self._breakers.of(name).allows():
                _fill(answers, its, PartAway(STORE, f"{name} failed just now"))
                continue
            pool: Any = self._redis_of(nodes[name]).connection_pool
            connection: Any = None
            try:
                connection = pool.get_connection()
                connection.send_packed_command(connection.pack_commands([calls[i][1] for i in its]))
            except (redis.RedisError, OSError) as e:
                self._breakers.of(name).failed()
                _fill(answers, its, PartAway(STORE, f"{name}: {e}"))
                if connection is not None:
                    connection.disconnect()
                    pool.release(connection)
            else:
                written.append((name, connection))
        for name, connection in written:
            server = self._redis_of(nodes[name])
            self._read(name, server, connection, [(i, calls[i][1][0]) for i in by_node[name]], answers)
            server.connection_pool.release(connection)

    def _read(
        self, name: str, server: Any, connection: Any, its: list[tuple[int, str]], answers: list[Any]
    ) -> None:
        for at, (i, command) in enumerate(its):
            try:
                answers[i] = server.parse_response(connection, command)
            except redis.ResponseError as e:
                answers[i] = e
            except (redis.RedisError, OSError) as e:
                connection.disconnect()
                self._breakers.of(name).failed()
                _fill(answers, [i for i, _ in its[at:]], PartAway(STORE, f"{name}: {e}"))
                return
        self._breakers.of(name).succeeded()

    def _settled(
        self,
        client: Any,
        nodes: dict[str, Any],
        by_node: dict[str, list[int]],
        answers: list[Any],
        load: Callable[[redis.Redis], None] | None,
    ) -> list[int]:
        """Which calls to send again: those whose slot is elsewhere, and those whose script is loaded now."""
        again = []
        for name, its in by_node.items():
            if any(isinstance(answers[i], PartAway) for i in its):
                self._refresh(client)
            unknown = [i for i in its if isinstance(answers[i], NoScriptError)]
            if unknown and load is not None:
                try:
                    load(self._redis_of(nodes[name]))
                    again += unknown
                except (ClicktideError, redis.RedisError, OSError) as e:
                    _fill(answers, unknown, PartAway(STORE, f"{name}: {e}"))
            for i in its:
                if isinstance(answers[i], MovedError):
                    client.nodes_manager.move_slot(answers[i])
                    again.append(i)
        return again

    def _redis_of(self, node: Any) -> redis.Redis:
        found: redis.Redis = self.client().get_redis_connection(node)
        return found

    def _refresh(self, client: Any) -> None:
        """Read the table anew, not more often than is of use."""
        now = time.monotonic()
        if now - self._refreshed_at < _REFRESH_EVERY_S:
            return
        self._refreshed_at = now
        # Who does not answer now will not say where its slots went.
        with suppress(redis.RedisError, RedisClusterException, OSError):
            client.nodes_manager.initialize(disconnect_startup_nodes_pools=False)


def as_part(error: Exception) -> Exception:
    """ASK is not followed: the script would find one half of its keys there, and leave the other here."""
    if isinstance(error, AskError) and not isinstance(error, MovedError):
        return PartAway(STORE, f"slot {error.slot_id} is being moved to another node")
    if isinstance(error, MovedError):
        return PartAway(STORE, f"slot {error.slot_id} keeps moving")
    if isinstance(error, redis.exceptions.TryAgainError | redis.exceptions.ClusterDownError):
        return PartAway(STORE, str(error))
    return error


def _fill(answers: list[Any], at: Sequence[int], error: Exception) -> None:
    for i in at:
        answers[i] = error


def _lines(answer: Any) -> list[tuple[str, str]]:
    if isinstance(answer, dict):
        return [(_text(k), _text(v)) for k, v in answer.items()]
    pairs = (line.partition(":") for line in _text(answer).splitlines())
    return [(k, v.strip()) for k, _, v in pairs]


def _text(raw: Any) -> str:
    return raw.decode() if isinstance(raw, bytes) else str(raw or "")
