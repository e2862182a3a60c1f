"""Runs the embedded services: starts them in order, restarts what dies, ends them in order.

Promises: only one on a data directory; what a killed demo left is ended first; a service that cannot come up at all
stops everything with one clear line; after `stop` none of its processes is left. It has no thread of its own: its
caller calls `watch` a few times a second.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from clicktide.settings import Settings
from deploy.embedded import plan, record, redis
from deploy.embedded.child import Child, keep_small
from deploy.embedded.errors import EmbeddedError
from deploy.embedded.hold import held, prepare_folders
from deploy.embedded.places import Places, private_socket, remove_private_socket
from deploy.embedded.relay import Relay

START_S = 60.0
HOPELESS = 5  # failures in a row, never having been ready


class Supervisor:
    """The embedded services of one data directory; use `running_services`, which also stops them."""

    def __init__(self, places: Places, settings: Settings, port: int, say: Callable[[str], None]) -> None:
        self.places, self.settings, self.port, self.say = places, settings, port, say
        self.environ = plan.environment(places, settings)
        self.children: list[Child] = []
        self.relays: dict[str, Relay] = {}
        self.facts: dict[str, Any] = {}

    def start(self) -> None:
        """Everything up and answering; raises `EmbeddedError` with what did not come up, and why."""
        private = self.places.socket
        if private == self.places.far_socket:
            private_socket(private)
        conf = self.places.redis / "redis.conf"
        conf.write_text(redis.configuration(self.places.redis, private), "utf-8")
        store = plan.redis_server(self.places, redis.binary(), self.environ)
        self._start(store)
        self._prepare()
        self._wait_ready([store])
        # The topologies first: they take longest, and what the collector accepts meanwhile waits in the log.
        for name in plan.TOPOLOGIES:
            self._start(plan.topology(self.places, name, self.settings, self.environ))
            self.relays[name] = Relay(self.places.logs / f"{name}.log")
        services = plan.services(self.places, self.port, self.environ)
        self._start(services)
        self._wait_ready([services])

    def _prepare(self) -> None:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "deploy.prepare", "embedded"],
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            said = done.stderr.strip().splitlines() or ["no reason given"]
            raise EmbeddedError(f"cannot prepare the stores in {self.places.root}: {said[-1]}")

    def _start(self, child: Child) -> None:
        child.start(time.monotonic())
        if child not in self.children:
            self.children.append(child)
        self.write_record()

    def _wait_ready(self, wanted: list[Child]) -> None:
        deadline = time.monotonic() + START_S
        while not all(child.check_ready() for child in wanted):
            self.watch()
            if time.monotonic() > deadline:
                late = ", ".join(c.name for c in wanted if not c.was_ready)
                raise EmbeddedError(f"{late} did not answer within {START_S:.0f} s; see {self.places.logs}")
            time.sleep(0.03)

    def all_ready(self) -> bool:
        return all(child.check_ready() for child in self.children)

    def watch(self) -> None:
        """Restarts what has ended, shows what the topologies complain of.

        Raises `EmbeddedError` for a process that never comes up.
        """
        now = time.monotonic()
        for name, relay in self.relays.items():
            for line in relay.new_lines(now):
                self.say(f"{name}: {line}")
        for child in self.children:
            if child.restart_at is not None:
                if now >= child.restart_at:
                    self._start(child)
            elif (code := child.exit_code()) is not None:
                self._after_end(child, code, now)
            elif child.check_ready() and now - child.started_at > 5:
                keep_small(child.log)

    def _after_end(self, child: Child, code: int, now: float) -> None:
        ended = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        was_ready = child.was_ready
        pause = child.plan_restart(now)
        lines = child.last_lines()
        if child.failures >= HOPELESS and not was_ready:
            last = f": {lines[-1].strip()}" if lines else ""
            raise EmbeddedError(
                f"{child.name} {ended} {child.failures} times in a row{last} (see {child.log})"
            )
        self.say(f"{child.name} {ended}; starting it again in {pause:.1f} s")
        for line in lines[-3:] if code != -9 else ():
            self.say(f"  {child.name}: {line}")

    def write_record(self) -> None:
        """Tells other commands, and a later demo, what runs."""
        children = {c.name: record.identity(c.pid) for c in self.children if c.pid and c.exit_code() is None}
        record.write(
            self.places.run_file,
            {
                **record.identity(os.getpid()),
                "data_dir": str(self.places.root),
                "port": self.port,
                "urls": plan.urls(self.port),
                "options": self.settings.options(),
                **self.facts,
                "children": {**children, **self.facts.get("children", {})},
            },
        )

    def stop(self, *, at_once: bool = False) -> None:
        """Ends all, callers before what they call; `at_once` gives them a tenth of a second each."""
        for names in (("services",), plan.TOPOLOGIES, ("redis",)):
            group = [c for c in self.children if c.name in names]
            for child in group:
                child.ask_to_end()
            for child in group:
                if not child.end(0.1 if at_once else None) and not at_once:
                    self.say(f"{child.name} did not end within {child.grace_s:.0f} s and was killed")
        if self.places.socket == self.places.far_socket:
            remove_private_socket(self.places.far_socket)
        self.places.run_file.unlink(missing_ok=True)


def check_port(port: int) -> int:
    """`port` if it is free on loopback, a free one for 0; raises `EmbeddedError` otherwise."""
    if not 0 <= port <= 65535:
        raise EmbeddedError(f"--port {port}: expected a port number up to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((plan.HOST, port))
        except OSError as e:
            raise EmbeddedError(
                f"port {port} on {plan.HOST}: {e.strerror}; choose another with --port"
            ) from e
        return int(probe.getsockname()[1])


@contextmanager
def running_services(
    places: Places,
    settings_of: Callable[[], Settings],
    port: int,
    say: Callable[[str], None],
    environ_of: Callable[[dict[str, str]], dict[str, str]] = dict,
) -> Iterator[Supervisor]:
    """The embedded services, up; ended when the block is left, at once when it is left by a second interrupt.

    `environ_of` may add to the environment that they get.
    """
    with ExitStack() as held_things:
        prepare_folders(places)
        held_things.enter_context(held(places.lock_file))
        if left := record.end_orphans(places.run_file):
            say(f"ended what a killed demo had left running: {', '.join(left)}")
        places.run_file.unlink(missing_ok=True)
        supervisor = Supervisor(places, settings_of(), check_port(port), say)
        supervisor.environ = environ_of(supervisor.environ)
        try:
            supervisor.start()
            yield supervisor
        finally:
            try:
                supervisor.stop()
            except KeyboardInterrupt:
                supervisor.stop(at_once=True)
