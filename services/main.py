"""Running services: roles, settings, address; one process, one port."""

from __future__ import annotations

import gc
import logging
import ssl
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from clicktide import turns
from clicktide.errors import SettingError
from clicktide.settings import Settings
from services.access import exposure
from services.application import ROLES, Services, now_ms
from services.connection import Bounds
from services.server import Served, Tls, raise_file_limit, serve

_SWITCH_S = 0.0005
# An answer makes some hundred containers, and hardly one of them needs the collector; what it looks through at a time is a pause for all.
_GARBAGE = (1_000, 20, 20)
_PORTS = {"query": "http.query_port", "dashboard": "http.dashboard_port"}


def roles_of(name: str) -> tuple[str, ...]:
    """`all`, or one role. Raises `SettingError`."""
    if name == "all":
        return ROLES
    if name not in ROLES:
        raise SettingError(f"unknown service {name!r}: expected all, {', '.join(ROLES)}")
    return (name,)


def tls_of(settings: Settings) -> Tls | None:
    """The certificate and its key; None where none is set. Raises `SettingError`."""
    given = {n: settings.text(n) for n in ("http.tls_cert", "http.tls_key")}
    if not any(given.values()):
        return None
    for name, path in given.items():
        if not path or not Path(path).is_file():
            raise SettingError(f"setting {name}: expected a PEM file, got {path!r}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(given["http.tls_cert"], given["http.tls_key"])
    except (OSError, ssl.SSLError) as e:
        raise SettingError(f"settings http.tls_cert and http.tls_key: they do not fit: {e}") from e
    return Tls(Path(given["http.tls_cert"]), Path(given["http.tls_key"]))


def log_access() -> None:
    """Access lines go to standard error as they are, so that each line is JSON and nothing else."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    access = logging.getLogger("clicktide.access")
    access.handlers = [handler]
    access.propagate = False


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
    turns.short()  # of all threads that are started from here
    roles = roles_of(name)
    host = exposure.check(host or settings.text("http.host"), roles, exposure.keyring_of(settings, now_ms))
    tls = tls_of(settings)
    port = settings.integer(_PORTS.get(name, "http.port")) if port is None else port
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("clicktide").setLevel(logging.INFO)
    if access_log or settings.flag("http.access_log"):
        log_access()
    else:
        logging.getLogger("clicktide.access").setLevel(logging.WARNING)
    if tls is None and not exposure.is_loopback(host) and not settings.text("http.trusted_proxies"):
        logging.getLogger("clicktide.server").warning(
            "keys and events cross the network unencrypted: set http.tls_cert and http.tls_key, or put a proxy in front"
        )
    connections = raise_file_limit(settings.integer("http.max_connections"))

    def make() -> Served:
        services = Services(settings, roles)
        _tune_interpreter()
        return Served(services.app, services.quick, services.stop)

    shown = f"[{host}]" if ":" in host else host

    def ready(found: int) -> None:
        say(_line(roles, f"{'https' if tls else 'http'}://{shown}:{found}"))

    bounds = Bounds(connections, settings.number("http.idle_timeout_s"), settings.number("http.drain_s"))
    serve(make, host, port, bounds, ready, tls)


def _tune_interpreter() -> None:
    """For answers in milliseconds: threads that ask SQL take turns with the loop more often, and what lives as long as the process is
    not searched for garbage. docs/decisions/0008-queries.md has the figures."""
    # A thread that wants its turn asks for it after so long; by default, 5 ms, a look into SQL took a few such waits.
    sys.setswitchinterval(_SWITCH_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GARBAGE)


def _line(roles: Sequence[str], url: str) -> str:
    return f"{' and '.join(roles) if len(roles) < 3 else 'all services'}: {url}"
