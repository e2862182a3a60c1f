"""A STORM_HOME laid out from jars, for daemons, workers and the `storm` command alike.

Laying it out again changes nothing but what the settings changed.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from deploy.stack.jars import ensure_jars, jar_folder
from deploy.stack.java import OPENS, rolling_log4j2
from deploy.stack.servers.base import Say, write_if_changed
from deploy.stack.settings import LOOPBACK, StackSettings
from deploy.storm.loopback import ensure_loopback

STORM_VERSION = "2.8.3"

# A worker's log and what its components print; Storm gives the file's name by system properties.
WORKER_LOG = "${sys:workers.artifacts}/${sys:storm.id}/${sys:worker.port}/${sys:logfile.name}"
DAEMON_LOG = "${sys:storm.log.dir}/${sys:logfile.name}"
NOISY = (
    "org.apache.storm.shade.org.apache.zookeeper",
    "org.apache.storm.shade.org.apache.curator",
    "org.apache.zookeeper",
)


def storm_home(settings: StackSettings) -> Path:
    """STORM_HOME of this stack."""
    return settings.folder("storm", "home")


def ensure_home(settings: StackSettings, say: Say) -> Path:
    """Lay out STORM_HOME; fetches the jars when they are not there. Raises StackError when they cannot be had."""
    ensure_jars(settings, "storm", say)
    ensure_loopback(settings)
    home = storm_home(settings)
    home.mkdir(parents=True, exist_ok=True)
    for name in ("lib", "lib-worker"):
        _link_folder(home / name, jar_folder(settings, "storm"))
    for name in ("extlib", "extlib-daemon"):
        (home / name).mkdir(exist_ok=True)
    write_if_changed(home / "RELEASE", STORM_VERSION + "\n")
    write_if_changed(home / "conf" / "storm.yaml", storm_yaml(settings))
    write_if_changed(home / "log4j2" / "cluster.xml", rolling_log4j2(DAEMON_LOG, quiet=NOISY))
    write_if_changed(home / "log4j2" / "worker.xml", rolling_log4j2(WORKER_LOG, quiet=NOISY))
    write_if_changed(home / "log4j2" / "local.xml", local_log4j2(settings.folder("logs", "storm-local.log")))
    # Flux's YAML reader warns of fields through Java's own logging.
    write_if_changed(home / "conf" / "logging.properties", ".level=SEVERE\n")
    return home


def _link_folder(link: Path, target: Path) -> None:
    if link.is_symlink() and link.readlink() == target:
        return
    if link.is_dir() and not link.is_symlink():
        shutil.rmtree(link)
    link.unlink(missing_ok=True)
    link.symlink_to(target)


def worker_options(settings: StackSettings) -> str:
    """JVM options of every worker. A topology adds its own by topology.worker.childopts, which come later and win."""
    return " ".join(
        [
            "-Xms64m",
            f"-Xmx{settings.worker_heap_mb}m",
            # Two cores shared with everything: the collector with the least threads costs least.
            "-XX:+UseSerialGC",
            "-XX:+ExitOnOutOfMemoryError",
            "-Djava.net.preferIPv4Stack=true",
            *OPENS,
        ]
    )


def storm_yaml(settings: StackSettings) -> str:
    """storm.yaml of a cluster of one machine. JSON values are YAML too, so each line is written as JSON."""
    last = settings.worker_port + settings.worker_slots
    values: dict[str, object] = {
        "storm.zookeeper.servers": [LOOPBACK],
        "storm.zookeeper.port": settings.zookeeper_port,
        "nimbus.seeds": [LOOPBACK],
        "nimbus.thrift.port": settings.nimbus_port,
        "storm.local.hostname": LOOPBACK,
        "storm.local.dir": str(settings.folder("storm", "local")),
        "storm.log.dir": str(settings.folder("logs")),
        "storm.workers.artifacts.dir": str(settings.folder("logs", "workers")),
        "storm.log4j2.conf.dir": str(storm_home(settings) / "log4j2"),
        "storm.metricstore.rocksdb.location": str(settings.folder("storm", "local", "metrics")),
        "supervisor.slots.ports": list(range(settings.worker_port, last)),
        "supervisor.thrift.port": settings.supervisor_port,
        "worker.heap.memory.mb": settings.worker_heap_mb,
        "worker.childopts": worker_options(settings),
        "topology.worker.logwriter.childopts": "-Xmx16m -XX:+UseSerialGC -XX:TieredStopAtLevel=1",
        "topology.worker.max.heap.size.mb": float(settings.worker_heap_mb),
        # A lost worker is noticed within seconds, on a machine that is often short of CPU.
        "storm.zookeeper.session.timeout": 10000,
        "storm.zookeeper.connection.timeout": 10000,
        "nimbus.monitor.freq.secs": 5,
        # Else three workers that die or start slowly within five minutes have the only supervisor there is shunned for
        # half an hour, and nothing runs meanwhile.
        "blacklist.scheduler.tolerance.count": 1_000_000,
        "supervisor.monitor.frequency.secs": 2,
        "supervisor.worker.shutdown.sleep.secs": 2,
        # Code of a killed topology goes soon: nobody else downloads it here.
        "nimbus.topology.blobstore.deletion.delay.ms": 10000,
    }
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items())


def local_log4j2(file: Path) -> str:
    """Log4j 2 for local mode: what components say goes to standard error, Storm's own words to ``file``.

    The end of a local cluster tears its parts down in no order, and each complains at length.
    """
    loud = (
        "org.apache.storm.task.ShellBolt",
        "org.apache.storm.spout.ShellSpout",
        "org.apache.storm.utils.DefaultShellLogHandler",
        "org.apache.storm.executor.error.ReportError",
    )
    loggers = "".join(
        f'    <Logger name="{name}" level="info"><AppenderRef ref="console"/></Logger>\n' for name in loud
    )
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="warn" shutdownHook="disable">
  <Appenders>
    <Console name="console" target="SYSTEM_ERR">
      <PatternLayout pattern="%d{{HH:mm:ss.SSS}} %-5p %c{{1}} %m %ex{{short.message}}%n"/>
    </Console>
    <RollingFile name="file" fileName="{file}" filePattern="{file}.%i">
      <PatternLayout pattern="%d{{yyyy-MM-dd HH:mm:ss.SSS}} %-5p %c{{1.}} [%t] %m%n"/>
      <Policies><SizeBasedTriggeringPolicy size="10 MB"/></Policies>
      <DefaultRolloverStrategy max="1"/>
    </RollingFile>
  </Appenders>
  <Loggers>
{loggers}    <Root level="info"><AppenderRef ref="file"/></Root>
  </Loggers>
</Configuration>
"""
