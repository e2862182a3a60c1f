"""Running services: roles, settings, address; one process, one port."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address

from starlette.types import ASGIApp

from clicktide.errors import SettingError
from clicktide.settings import Settings
from services.application import ROLES, Services
from services.server import serve

_PORTS = {"query": "http.query_port", "dashboard": "http.dashboard_port"}


def roles_of(name: str) -> tuple[str, ...]:
    """`all`, or one role. Raises `SettingError`."""
    if name == "all":
        return ROLES
    if name not in ROLES:
        raise SettingError(f"unknown service {name!r}: expected all, {', '.join(ROLES)}")
    return (name,)


def check_loopback(host: str) -> str:
    """`host`, where only this machine can reach it: there are no keys yet, so nobody else may. Raises `SettingError`."""
    try:
        loopback = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise SettingError(
            f"setting http.host: expected a loopback address, got {host!r}: "
            "without keys the services are for this machine only; put a proxy in front"
        )
    return host


def run(
    name: str,
    settings: Settings,
    *,
    host: str | None = None,
    port: int | None = None,
    access_log: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Serves `name` until SIGINT or SIGTERM. Raises `SettingError`, `CannotListen`."""
    roles = roles_of(name)
    host = check_loopback(host or settings.text("http.host"))
    port = settings.integer(_PORTS.get(name, "http.port")) if port is None else port
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("clicktide").setLevel(logging.INFO)
    if not access_log:
        logging.getLogger("clicktide.access").setLevel(logging.WARNING)

    def make() -> tuple[ASGIApp, Callable[[], Awaitable[None]]]:
        services = Services(settings, roles)
        return services.app, services.stop

    shown = f"[{host}]" if ":" in host else host

    def ready(found: int) -> None:
        say(_line(roles, f"http://{shown}:{found}"))

    serve(make, host, port, settings.number("http.drain_s"), ready)


def _line(roles: Sequence[str], url: str) -> str:
    return f"{' and '.join(roles) if len(roles) < 3 else 'all services'}: {url}"
