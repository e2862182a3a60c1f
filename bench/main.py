"""`./tide bench`: drain and latency of the embedded system or of the real stack, as text to commit."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from pathlib import Path
from typing import Annotated

import typer

from cli.context import EnvOption
from clicktide.errors import ClicktideError

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)


def _say(line: str) -> None:
    print(f"bench: {line}", file=sys.stderr, flush=True)


def _machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return f"{os.cpu_count()} cores ({model}), Python {platform.python_version()}"


def _table(figures: dict[str, float], unit: str) -> str:
    parts = [
        f"{role} {value:.1f}"
        for role, value in sorted(figures.items(), key=lambda kv: -kv[1])
        if value >= 0.05
    ]
    return f"{', '.join(parts)}; in all {sum(figures.values()):.1f} {unit}"


@app.command()
def drain(
    env: EnvOption = "embedded",
    events: Annotated[int, typer.Option(min=1000, help="Events of the backlog, each run.")] = 200_000,
    runs: Annotated[int, typer.Option(min=1, help="Runs, one after the other on the same system.")] = 3,
) -> None:
    """How fast a backlog goes into both stores, and the CPU seconds it takes."""
    from bench.bench_drain import drain as measure
    from bench.system import system

    print(f"drain, {env}, {runs} runs of {events} events on {_machine()}, everything on them")
    rates = []
    with system(env) as under:
        for n in range(runs):
            found = measure(under, events, 100 + n, _say)
            rates.append(found.rate)
            print(f"run {n + 1}: {found.rate:,.0f} events/s ({found.events} in {found.seconds:.1f} s)")
            print(f"  CPU s per million: {_table(found.per_million(), 's')}")
            print(f"  memory (PSS): {_table(found.memory_mb, 'MiB')}")
    print(f"median {statistics.median(rates):,.0f} events/s")


@app.command()
def stores(
    events: Annotated[int, typer.Option(min=3000, help="Events, in three parts.")] = 300_000,
    size: Annotated[int, typer.Option(min=1, help="Records a slice.")] = 1000,
) -> None:
    """What an event costs Redis, MariaDB and the Python before them, on servers of their own."""
    import tempfile

    from bench import bench_stores
    from clicktide.settings import Settings

    print(f"stores, {events} events in slices of {size} on {_machine()}; CPU s per million events")
    _say("making events")
    parts = bench_stores.slices(events, size, 7, Settings({}))
    with (
        tempfile.TemporaryDirectory(prefix="tide-") as folder,
        bench_stores.servers(Path(folder)) as (s, pids),
    ):
        for n in range(3):
            third = parts[n * len(parts) // 3 : (n + 1) * len(parts) // 3]
            for name, cost in (
                ("Redis", bench_stores.redis_cost(s, pids["redis"], third)),
                ("MariaDB", bench_stores.sql_cost(s, pids["mariadb"], third)),
            ):
                print(
                    f"part {n + 1}: {name} {cost.server:.1f}, its client {cost.client:.1f};"
                    f" {cost.bytes:.0f} bytes of log an event",
                    flush=True,
                )
    print(f"load: {os.getloadavg()[0]:.1f}")


@app.command()
def latency(
    env: EnvOption = "embedded",
    rate: Annotated[int, typer.Option(min=1, help="Events a second beside the probes.")] = 1000,
    seconds: Annotated[int, typer.Option(min=1)] = 30,
    probes: Annotated[int, typer.Option(min=1, help="Probes a second.")] = 50,
    to: Annotated[str, typer.Option(help="http (through the collector) or log.")] = "http",
) -> None:
    """From the intended time of sending until an event can be queried."""
    from bench.bench_latency import latency as measure
    from bench.system import system

    if to not in ("http", "log"):
        raise typer.BadParameter("expected http or log", param_hint="--to")
    print(
        f"latency, {env}, {rate} events/s + {probes} probes/s for {seconds} s by {to}, on {_machine()}, everything on them"
    )
    with system(env) as under:
        found = measure(under, env, rate, seconds, probes, to)
    print(
        "intended time to visible: "
        + ", ".join(
            f"{name} {found.percentile(q):.0f} ms"
            for name, q in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999))
        )
        + f", max {found.ms[-1] if found.ms else float('inf'):.0f} ms; {found.sent} probes, {found.never} never visible,"
        f" {found.late_sends} sent late"
    )
    busy = {role: s / found.seconds * 100 for role, s in found.cpu_s.items()}
    print(f"  CPU: {_table(busy, '% of a core')}")
    print(f"  load: {found.load}")


@app.command()
def scale(
    events: Annotated[int, typer.Option(min=1000, help="Records in all.")] = 200_000,
    rate: Annotated[float, typer.Option(min=1, help="Records a second.")] = 2000,
    rebalance: Annotated[float, typer.Option(help="Seconds until `storm rebalance`.")] = 20,
    kill: Annotated[float, typer.Option(help="Seconds until a worker is killed.")] = 40,
    persist: Annotated[int, typer.Option(min=1, help="Executors of persist after the rebalance.")] = 2,
    seed: Annotated[int, typer.Option(help="Of the traffic.")] = 1,
) -> int:
    """Two Storm workers, a rebalance and a killed worker while events flow, on a real stack of its own; then the ledger."""
    import shutil
    import tempfile

    from bench import scale as drill
    from cli.context import ROOT

    course = drill.Course(events, rate, rebalance, kill, persist, seed)
    print(f"scale, {events} records at {rate:g}/s on {_machine()}, everything on them")
    root = Path(tempfile.mkdtemp(prefix="clicktide-scale-"))
    try:
        with drill.own_stack(root, ROOT, _say) as own, drill.topologies(own, root, ROOT, _say) as environ:
            found = drill.run(own, root, ROOT, environ, course, _say)
            print("\n".join(found.lines()))
            for task, counts in sorted(drill.shares(own).items()):
                print(f"  {task}, since it started: {counts}")
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return 0 if found.balanced else 1


@app.command()
def queries(
    env: EnvOption = "embedded",
    rate: Annotated[float, typer.Option(min=1, help="Queries a second.")] = 1000,
    seconds: Annotated[float, typer.Option(min=1, help="So long; the warming up comes before.")] = 30,
    events: Annotated[float, typer.Option(min=0, help="Events a second that flow beside.")] = 5000,
    before: Annotated[int, typer.Option(min=0, help="Events stored beforehand.")] = 200_000,
    warm: Annotated[float, typer.Option(min=0, help="Seconds of queries that do not count.")] = 10,
    mix: Annotated[
        str, typer.Option(help="Shares of timeline, profile, sessions, purchases and the metrics.")
    ] = "timeline=1,profile=1",
) -> None:
    """How long queries take in an open loop while events flow, and the CPU seconds they cost."""
    from bench.bench_queries import percentile
    from bench.bench_queries import queries as measure
    from bench.query_load import shares_of
    from bench.system import system

    try:
        shares_of(mix)
    except ValueError as e:
        raise typer.BadParameter(str(e), param_hint="--mix") from e
    print(
        f"queries, {env}, {rate:g}/s ({mix}) for {seconds:g} s beside {events:g} events/s by the log, on {_machine()}, "
        "everything on them"
    )
    with system(env) as under:
        found = measure(under, env, rate, seconds, events, before, warm, mix, _say)
    if not found.answers:
        raise ClicktideError(f"no query was answered within {seconds:g} s: the machine has too much to do")
    ends = [
        *sorted(found.ms.items()),
        ("all", found.all_ms),
        ("all, until the load had taken them", found.taken_ms),
    ]
    for path, ms in ends:
        print(
            f"{path}: "
            + ", ".join(
                f"{name} {percentile(ms, q):.2f}"
                for name, q in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0))
            )
            + f", mean {sum(ms) / len(ms):.2f} ms; {len(ms)} answers"
        )
    if found.within:
        said = ", ".join(f"{s * 1000:g} ms {share:.2%}" for s, share in found.within.items() if share < 1)
        print(f"by the service's own clock, within {said}")
    print(
        f"achieved {found.answers / found.seconds:,.0f}/s; {found.failed} failed, {found.late} sent late, "
        f"{found.degraded} degraded; status "
        + ", ".join(f"{code}: {n}" for code, n in sorted(found.status.items()))
    )
    print(f"  query service: {found.service_cpu_s / found.answers * 1000:.3f} CPU s per 1000 queries")
    busy = {role: s / found.seconds * 100 for role, s in found.cpu_s.items()}
    print(f"  CPU: {_table(busy, '% of a core')}")
    print(f"  events: {found.load}")


@app.command()
def http(
    seconds: Annotated[float, typer.Option(min=1, help="Of each load.")] = 15,
    runs: Annotated[int, typer.Option(min=1, help="Runs of each load, in turns.")] = 3,
    batch: Annotated[int, typer.Option(min=2, max=1000, help="Events of a batch.")] = 500,
    connections: Annotated[int, typer.Option(min=1, help="Of single events; batches have an eighth.")] = 64,
    kafka: Annotated[str, typer.Option(help="Bootstrap servers; none: the embedded log.")] = "",
) -> None:
    """How many uploads the collector takes on one core, single events and batches."""
    from bench.bench_http import collector, uploads

    log = f"Kafka at {kafka}" if kafka else "the embedded log"
    print(f"http, a collector pinned to one core, {log}; {seconds:g} s each, on {_machine()}")
    with collector(kafka, _say) as (pid, port):
        for n in range(runs):
            for size, many in ((1, connections), (batch, max(1, connections // 8))):
                _say(f"run {n + 1}: {size} events a request")
                found = uploads(pid, port, size, many, seconds)
                print(f"run {n + 1}, {size} a request, {many} connections: {found.line()}", flush=True)


@app.command()
def storm(
    name: Annotated[str, typer.Option("--name", "-n", help="The topology.")] = "events",
    window: Annotated[str, typer.Option(help="10m, 3h, 1d or all.")] = "10m",
    nimbus: Annotated[str, typer.Option(help="host:port of Nimbus.")] = "127.0.0.1:6627",
) -> None:
    """What Storm itself says of a running topology: latencies and capacity of its components."""
    from bench.bench_storm import WINDOWS, numbers

    host, _, port = nimbus.rpartition(":")
    if window not in WINDOWS:
        raise typer.BadParameter(f"expected one of {', '.join(WINDOWS)}", param_hint="--window")
    if not host or not port.isdecimal():
        raise typer.BadParameter("expected host:port", param_hint="--nimbus")
    for component in numbers(host, int(port), name, window):
        print(component.line())
