"""The one registry of settings: name, type, default, unit and help of everything that can be set.

Workers read them from Storm's configuration (options named `tide.<name>`), everything else from the
environment (`TIDE_<NAME>` with `_` for `.`) over `config.json`'s `envs.<env>.options`. An unknown or bad setting is
refused at start with its name and what was expected.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from clicktide.errors import SettingError
from clicktide.start import EXPECTED, start_of

PREFIX = "tide."
ENV_PREFIX = "TIDE_"
# Environment variables of ours that are not settings: where to look, not what to do.
ENV_RESERVED = frozenset(
    {
        "TIDE_DEBUG",
        "TIDE_ENV",
        "TIDE_CACHE",
        "TIDE_HOME",
        "TIDE_DATA_DIR",
        "TIDE_CONFIG",
        "TIDE_WRITE_KEY",
    }
)

Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. `check` answers what was expected instead, or None when the value is good."""

    name: str
    type: type
    default: Value
    unit: str
    help: str
    check: Callable[[Any], str | None] | None = None

    def parse(self, raw: object) -> Value:
        """`raw` (text or a JSON value) as this setting's type; raises `SettingError`."""
        expected = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}[self.type]
        value = self._convert(raw)
        if value is None:
            raise SettingError(f"setting {self.name}: expected {expected}, got {raw!r}")
        if self.check is not None and (wanted := self.check(value)) is not None:
            raise SettingError(f"setting {self.name}: expected {wanted}, got {raw!r}")
        return value

    def _convert(self, raw: object) -> Value | None:
        if self.type is bool:
            return {"true": True, "1": True, "false": False, "0": False}.get(str(raw).lower())
        if isinstance(raw, bool):
            return None
        if self.type is str:
            return str(raw) if isinstance(raw, str | int | float) else None
        if not isinstance(raw, str | int | float):
            return None
        try:
            number = float(raw)
            if not math.isfinite(number) or (self.type is int and number != int(number)):
                return None
            return int(number) if self.type is int else number
        except ValueError:
            return None


def _at_least(low: float) -> Callable[[Any], str | None]:
    return lambda v: None if v >= low else f"at least {low:g}"


def _power_of_two(v: int) -> str | None:
    return None if v > 0 and v & (v - 1) == 0 and v <= 65536 else "a power of two up to 65536"


def _one_of(*names: str) -> Callable[[Any], str | None]:
    return lambda v: None if v in names else " or ".join(names)


def _port(v: int) -> str | None:
    return None if 0 <= v <= 65535 else "a port, 0 to 65535"


def _dsns(v: str) -> str | None:
    names = [d for d in v.split() if d]
    return None if names and all("://" in d for d in names) else "SQLAlchemy URLs separated by blanks"


def _addresses(v: str) -> str | None:
    try:
        for part in v.split():
            ip_network(part)
    except ValueError:
        return "addresses or networks (10.0.0.0/8) separated by blanks"
    return None


def _start(v: str) -> str | None:
    try:
        start_of(v)
    except ValueError:
        return EXPECTED
    return None


def _ratio(v: float) -> str | None:
    return None if 0 <= v <= 1 else "0 to 1"


_TIERS = ("1s", "10s", "1m", "10m")  # as topics.TIERS; each has its topic


def _tiers(v: str) -> str | None:
    names = v.split()
    wanted = [t for t in _TIERS if t in names]
    return None if names and names == wanted else f"some of {' '.join(_TIERS)}, in this order"


def _classes(v: str) -> str | None:
    kinds = ("fatal", "transient", "unknown")
    pairs = [word.partition("=") for word in v.split()]
    good = all(code and kind in kinds for code, _, kind in pairs)
    return None if good else f"code=class with a class of {', '.join(kinds)}"


REGISTRY: dict[str, Setting] = {
    s.name: s
    for s in (
        Setting(
            "log.adapter",
            str,
            "embedded",
            "",
            "Which client reads and writes the log.",
            _one_of("embedded", "kafka-python", "confluent"),
        ),
        Setting("log.path", str, "", "", "The embedded log's SQLite file."),
        Setting(
            "log.retention_mb",
            int,
            2048,
            "MiB",
            "The embedded log drops its oldest records past this size.",
            _at_least(1),
        ),
        Setting(
            "kafka.bootstrap",
            str,
            "127.0.0.1:19092",
            "",
            "Kafka's bootstrap servers, host:port separated by commas.",
        ),
        Setting(
            "kafka.security",
            str,
            "PLAINTEXT",
            "",
            "Kafka's security protocol.",
            _one_of("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
        ),
        Setting(
            "kafka.sasl_mechanism", str, "", "", "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; empty for none."
        ),
        Setting("kafka.username", str, "", "", "SASL user name."),
        Setting("kafka.password", str, "", "", "SASL password."),
        Setting(
            "kafka.ca_file", str, "", "", "PEM file of the authorities that signed the brokers' certificates."
        ),
        Setting("topics.prefix", str, "tide.", "", "Prefix of every topic's name."),
        Setting(
            "topics.partitions", int, 8, "", "Partitions of each topic that Clicktide makes.", _power_of_two
        ),
        Setting(
            "topics.retention_h",
            float,
            168.0,
            "h",
            "How long a topic that Clicktide makes keeps its records.",
            _at_least(1),
        ),
        Setting(
            "group", str, "clicktide", "", "Consumer group whose offsets say how far the topologies are."
        ),
        Setting("slice.records", int, 500, "records", "A slice holds at most so many records.", _at_least(1)),
        Setting(
            "slice.bytes",
            int,
            1_048_576,
            "bytes",
            "A slice holds at most so many bytes of records, but always one record.",
            _at_least(1),
        ),
        Setting(
            "slice.wait_ms", int, 20, "ms", "A slice waits at most so long for more records.", _at_least(0)
        ),
        Setting(
            "slice.in_flight",
            int,
            8,
            "slices",
            "Slices of one spout task on their way at the same time.",
            _at_least(1),
        ),
        Setting(
            "slice.start",
            str,
            "earliest",
            "",
            "Where a partition of events without a committed offset begins: earliest, latest, a time (RFC 3339) or ms.",
            _start,
        ),
        Setting(
            "commit.delay_s",
            float,
            5.0,
            "s",
            "An offset is committed so long after its slice was acked: longer than Redis may lose.",
            _at_least(0),
        ),
        Setting(
            "redis.url",
            str,
            "redis://127.0.0.1:16379/0",
            "",
            "Redis: redis://, rediss:// (TLS) or unix://; redis+cluster:// or rediss+cluster:// with host:port,host:port.",
        ),
        Setting(
            "redis.ca_file",
            str,
            "",
            "",
            "PEM file of the authorities that signed Redis's certificate, for rediss:// and rediss+cluster://.",
        ),
        Setting(
            "redis.namespace",
            str,
            "main",
            "",
            "Every key starts with tide:<namespace>: (a reprocessing takes a new one).",
        ),
        Setting("redis.timeout_s", float, 5.0, "s", "How long one call to Redis may take.", _at_least(0.01)),
        Setting(
            "shards.count", int, 64, "shards", "Logical shards, 2^k; fixed once there is data.", _power_of_two
        ),
        Setting(
            "sql.dsns", str, "", "", "SQLAlchemy URLs of the shards' servers, separated by blanks.", _dsns
        ),
        Setting(
            "sql.ca_file",
            str,
            "",
            "",
            "PEM file of the authorities that signed the SQL servers' certificates; with it nothing goes without TLS.",
        ),
        Setting(
            "sql.timeout_s", float, 5.0, "s", "How long one call to a SQL server may take.", _at_least(0.01)
        ),
        Setting(
            "sql.bulk",
            bool,
            True,
            "",
            "Events go to a server that takes it (MariaDB's do) in bulk, not as text.",
        ),
        Setting(
            "ids.pseudonym_key",
            str,
            "",
            "",
            "Secret; with it user_id, device_id and anonymous_id are stored as their HMAC-SHA256. Never change it.",
        ),
        Setting(
            "claims.window_h", float, 24.0, "h", "For how long an event's id is remembered.", _at_least(0.01)
        ),
        Setting(
            "claims.buckets",
            int,
            256,
            "hashes",
            "Hashes that hold a shard's claims, from the next window on: one costs Redis least CPU, many with a few dozen each half the memory.",
            _power_of_two,
        ),
        Setting(
            "timeline.length",
            int,
            200,
            "events",
            "Events kept in Redis for each user; older ones are read from SQL.",
            _at_least(1),
        ),
        Setting(
            "timeline.ttl_h",
            float,
            720.0,
            "h",
            "A user's timeline leaves Redis so long after its last event.",
            _at_least(1),
        ),
        Setting(
            "buckets.second_ttl_h", float, 2.0, "h", "How long the 1-second buckets are kept.", _at_least(0.1)
        ),
        Setting(
            "buckets.minute_ttl_h", float, 192.0, "h", "How long the 1-minute buckets are kept.", _at_least(1)
        ),
        Setting(
            "buckets.hour_ttl_h", float, 1080.0, "h", "How long the 1-hour buckets are kept.", _at_least(1)
        ),
        Setting(
            "buckets.day_ttl_h", float, 9600.0, "h", "How long the 1-day buckets are kept.", _at_least(1)
        ),
        Setting(
            "events.late_after_h",
            float,
            168.0,
            "h",
            "Events older than this are stored and shown as late, but not counted.",
            _at_least(0.01),
        ),
        Setting(
            "events.future_s",
            float,
            300.0,
            "s",
            "Events further in the future than this are refused.",
            _at_least(0),
        ),
        Setting(
            "retry.attempts",
            int,
            8,
            "attempts",
            "Charged attempts of a failed stage before its event is dead.",
            _at_least(1),
        ),
        Setting(
            "retry.unknown_attempts",
            int,
            4,
            "attempts",
            "The same for failures of no known class.",
            _at_least(1),
        ),
        Setting(
            "retry.deadline_h",
            float,
            72.0,
            "h",
            "An event that fails for longer while its store is there is dead; less than topics.retention_h.",
            _at_least(0.001),
        ),
        Setting(
            "retry.park_tier",
            str,
            "1m",
            "",
            "The longest tier in which events wait for a store that is away.",
            _one_of("1s", "10s", "1m", "10m"),
        ),
        Setting(
            "retry.hold_s",
            float,
            1800.0,
            "s",
            "So long at most an event is held in that tier before its store is asked again; less than half of topics.retention_h.",
            _at_least(1),
        ),
        Setting(
            "retry.poison_fails",
            int,
            3,
            "failures",
            "A slice that failed, or was there when its worker died, so often is tried alone; a record so tried is dead.",
            _at_least(2),
        ),
        Setting(
            "retry.tiers",
            str,
            "1s 10s 1m 10m",
            "",
            "The retry topics in use, shortest first; the last serves all later attempts.",
            _tiers,
        ),
        Setting(
            "retry.classes",
            str,
            "",
            "",
            "Another class for an error code: code=class, separated by blanks.",
            _classes,
        ),
        Setting(
            "retry.max_replays",
            int,
            3,
            "replays",
            "The desk refuses to replay a dead letter more often, unless forced.",
            _at_least(1),
        ),
        Setting(
            "retry.audit_file",
            str,
            "",
            "",
            "Where the services write who changed dead letters; empty: dead-audit.jsonl beside the embedded log, else here.",
        ),
        Setting(
            "retry.dead_burst",
            int,
            10_000,
            "records",
            "A stage may send so many to dead within retry.dead_window_s, whatever their ratio.",
            _at_least(1),
        ),
        Setting(
            "retry.dead_ratio",
            float,
            0.2,
            "",
            "Past the burst it is stopped when more than this part of its records is dead.",
            _ratio,
        ),
        Setting(
            "retry.dead_window_s",
            float,
            60.0,
            "s",
            "The time over which dead letters are counted for the two limits.",
            _at_least(1),
        ),
        Setting(
            "retry.dead_probe_s",
            float,
            30.0,
            "s",
            "A stage that is stopped lets one slice's dead letters through so often.",
            _at_least(0.1),
        ),
        Setting(
            "breaker.failures",
            int,
            5,
            "failures",
            "Consecutive failures that open a store's breaker.",
            _at_least(1),
        ),
        Setting(
            "breaker.probe_s",
            float,
            1.0,
            "s",
            "How long an open breaker waits before it lets one call probe.",
            _at_least(0.01),
        ),
        Setting("http.host", str, "127.0.0.1", "", "Address that the services listen on."),
        Setting("http.port", int, 8080, "", "Port of the collector, and of all services in one.", _port),
        Setting("http.query_port", int, 8081, "", "Port of the query service, where it runs alone.", _port),
        Setting("http.dashboard_port", int, 8082, "", "Port of the live page, where it runs alone.", _port),
        Setting(
            "http.max_body_kb",
            int,
            1024,
            "KiB",
            "An upload's body may be so large on the wire.",
            _at_least(1),
        ),
        Setting(
            "http.max_inflated_kb",
            int,
            4096,
            "KiB",
            "A compressed upload may inflate to so much.",
            _at_least(1),
        ),
        Setting(
            "http.max_events", int, 1000, "events", "An upload may hold at most so many events.", _at_least(1)
        ),
        Setting(
            "http.body_timeout_s",
            float,
            10.0,
            "s",
            "A body that is not there after so long is refused.",
            _at_least(0.01),
        ),
        Setting(
            "http.ack_timeout_s",
            float,
            5.0,
            "s",
            "The collector waits so long for the broker's acknowledgement, then answers 503.",
            _at_least(0.05),
        ),
        Setting(
            "http.queue_events",
            int,
            20_000,
            "events",
            "So many events may wait for the broker; past them the collector answers 429.",
            _at_least(1),
        ),
        Setting(
            "http.linger_ms",
            float,
            2.0,
            "ms",
            "The collector waits so long for more events before it writes.",
            _at_least(0),
        ),
        Setting(
            "http.max_rate",
            float,
            0.0,
            "events/s",
            "The collector takes at most so many events of all clients; 0 for no limit.",
            _at_least(0),
        ),
        Setting(
            "http.max_query_rate",
            float,
            0.0,
            "requests/s",
            "The query service answers at most so many requests of all clients; 0 for no limit.",
            _at_least(0),
        ),
        Setting(
            "http.user_rate",
            float,
            0.0,
            "events/s",
            "The collector takes at most so many events of one user, whoever sends them; 0 for no limit.",
            _at_least(0),
        ),
        Setting(
            "http.user_burst",
            float,
            100.0,
            "events",
            "So many events of one user may come at once before http.user_rate holds.",
            _at_least(1),
        ),
        Setting(
            "http.max_uploading_mb",
            int,
            64,
            "MiB",
            "Bodies that are being read or waiting for the broker may hold so much; past it 429.",
            _at_least(1),
        ),
        Setting(
            "http.max_connections",
            int,
            16_000,
            "connections",
            "Connections open at the same time; further ones are answered 503 or closed.",
            _at_least(1),
        ),
        Setting(
            "http.idle_timeout_s",
            float,
            75.0,
            "s",
            "A connection on which no whole request head arrives for so long is closed (proxies keep theirs for 60 s).",
            _at_least(0.1),
        ),
        Setting(
            "http.tls_cert", str, "", "", "PEM file with the certificate and its chain; empty for no TLS."
        ),
        Setting("http.tls_key", str, "", "", "PEM file with the certificate's private key."),
        Setting(
            "http.trusted_proxies",
            str,
            "",
            "",
            "Proxies whose X-Forwarded-For and -Proto are believed: addresses or networks separated by blanks.",
            _addresses,
        ),
        Setting("http.access_log", bool, False, "", "One JSON line a request on standard error."),
        Setting(
            "http.log_addresses", bool, False, "", "Callers' addresses in the access log: personal data."
        ),
        Setting(
            "http.store_timeout_s",
            float,
            1.0,
            "s",
            "A query waits so long for one store, then answers without it.",
            _at_least(0.01),
        ),
        Setting(
            "http.unready_s",
            float,
            0.0,
            "s",
            "A service that is told to stop says so in /health/ready for so long before it takes nothing new.",
            _at_least(0),
        ),
        Setting(
            "http.drain_s",
            float,
            10.0,
            "s",
            "A service that is told to stop waits at most so long for what is under way.",
            _at_least(0),
        ),
        Setting(
            "http.share_ms",
            int,
            100,
            "ms",
            "Callers who ask for the same metrics within so long share one answer (its as_of says of when).",
            _at_least(0),
        ),
        Setting(
            "keys.file",
            str,
            "",
            "",
            "The keys file (./tide keys); empty: no keys, and the services listen on loopback only.",
        ),
        Setting(
            "keys.write_rate",
            float,
            0.0,
            "events/s",
            "What a write key without a rate of its own may send; 0 for no limit.",
            _at_least(0),
        ),
        Setting(
            "keys.read_rate",
            float,
            0.0,
            "requests/s",
            "What a read key without a rate of its own may ask; 0 for no limit.",
            _at_least(0),
        ),
        Setting(
            "keys.share",
            float,
            0.5,
            "",
            "The part of http.queue_events and http.max_uploading_mb that one key may hold.",
            _ratio,
        ),
        Setting("keys.open_metrics", bool, False, "", "/metrics needs no key even where keys are set."),
    )
}


class Settings(Mapping[str, Value]):
    """Checked values of every setting; typed access by `text`, `integer`, `number`, `flag`. Immutable."""

    def __init__(self, given: Mapping[str, object]) -> None:
        for name in given:
            if name not in REGISTRY:
                raise SettingError(f"unknown setting {name!r}; see docs/settings.md for those that exist")
        self._values = {n: s.parse(given[n]) if n in given else s.default for n, s in REGISTRY.items()}
        self._given = frozenset(given)

    def __getitem__(self, name: str) -> Value:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def text(self, name: str) -> str:
        return str(self._values[name])

    def integer(self, name: str) -> int:
        return int(self._values[name])

    def number(self, name: str) -> float:
        return float(self._values[name])

    def flag(self, name: str) -> bool:
        return bool(self._values[name])

    def options(self) -> dict[str, Value]:
        """What was given, as Storm options (`tide.<name>`)."""
        return {PREFIX + n: self._values[n] for n in sorted(self._given)}


def from_storm(conf: Mapping[str, object]) -> Settings:
    """Settings of a worker: the `tide.*` options in Storm's configuration."""
    return Settings({k.removeprefix(PREFIX): v for k, v in conf.items() if k.startswith(PREFIX)})


def _reserved(variable: str) -> bool:
    return variable in ENV_RESERVED or variable.startswith("TIDE_STACK_")


def from_environment(environ: Mapping[str, str], options: Mapping[str, object]) -> Settings:
    """Settings of a service or command: `TIDE_*` variables over the environment's options of config.json."""
    by_variable = {ENV_PREFIX + n.upper().replace(".", "_"): n for n in REGISTRY}
    given = {k.removeprefix(PREFIX): v for k, v in options.items() if k.startswith(PREFIX)}
    for variable, raw in environ.items():
        if variable.startswith(ENV_PREFIX) and not _reserved(variable):
            if variable not in by_variable:
                raise SettingError(f"unknown setting in the environment: {variable}")
            given[by_variable[variable]] = raw
    return Settings(given)


def options_of(config_file: Path, env: str) -> dict[str, object]:
    """`envs.<env>.options` of a config.json; raises `SettingError` naming what is missing."""
    try:
        envs = json.loads(config_file.read_text("utf-8"))["envs"]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise SettingError(f"{config_file.name}: expected a JSON object with `envs` ({e})") from e
    if not isinstance(envs, dict) or not all(isinstance(one, dict) for one in envs.values()):
        raise SettingError(f"{config_file.name}: expected `envs` to be an object of objects")
    if env not in envs:
        raise SettingError(f"unknown environment {env!r}: {config_file.name} has {', '.join(sorted(envs))}")
    options = envs[env].get("options") or {}
    if not isinstance(options, dict):
        raise SettingError(f"{config_file.name}: expected `envs.{env}.options` to be an object")
    return options
