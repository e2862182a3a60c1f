"""How the stack's JVMs are started: options, class path, log files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

# Storm's and Kafka's serializers reach into these packages, which Java 17 closes.
OPENS = tuple(
    f"--add-opens=java.base/{package}=ALL-UNNAMED"
    for package in (
        "java.lang",
        "java.lang.invoke",
        "java.nio",
        "java.util",
        "java.util.concurrent",
        "sun.nio.ch",
    )
)


def java_argv(
    main: str,
    *,
    heap_mb: int,
    class_path: list[str],
    properties: Mapping[str, str],
    arguments: list[str],
) -> list[str]:
    """A java command line for ``main``; the heap starts small and ends at ``heap_mb``."""
    return [
        "java",
        f"-Xms{min(heap_mb, 64)}m",
        f"-Xmx{heap_mb}m",
        "-XX:+UseSerialGC" if heap_mb < 512 else "-XX:+UseG1GC",
        "-XX:+ExitOnOutOfMemoryError",
        "-Djava.net.preferIPv4Stack=true",
        "-Djava.awt.headless=true",
        *OPENS,
        *(f"-D{key}={value}" for key, value in properties.items()),
        "-cp",
        ":".join(class_path),
        main,
        *arguments,
    ]


def rolling_log4j2(file: Path | str, *, quiet: tuple[str, ...] = ()) -> str:
    """A Log4j 2 configuration: INFO and above into ``file``, four files of 10 MB at most."""
    loggers = "".join(f'    <Logger name="{name}" level="warn"/>\n' for name in quiet)
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="warn" shutdownHook="disable">
  <Appenders>
    <RollingFile name="file" fileName="{file}" filePattern="{file}.%i">
      <PatternLayout pattern="%d{{yyyy-MM-dd HH:mm:ss.SSS}} %-5p %c{{1.}} %m%n"/>
      <Policies><SizeBasedTriggeringPolicy size="10 MB"/></Policies>
      <DefaultRolloverStrategy max="3"/>
    </RollingFile>
  </Appenders>
  <Loggers>
{loggers}    <Root level="info"><AppenderRef ref="file"/></Root>
  </Loggers>
</Configuration>
"""
