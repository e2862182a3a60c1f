"""The log: partitioned, durable, replayable topics behind one port (Kafka, or one SQLite file).

`open_log` answers the adapter that the settings name; nothing is imported or connected before it is used.
"""

from __future__ import annotations

from clicktide.log.port import Log
from clicktide.settings import Settings

__all__ = ["open_log"]


def open_log(settings: Settings) -> Log:
    """The log of `log.adapter`. Cheap: connects on use. Raises `SettingError` when a setting it needs is missing."""
    adapter = settings.text("log.adapter")
    if adapter == "embedded":
        from clicktide.log.embedded import EmbeddedLog

        return EmbeddedLog.of(settings)
    if adapter == "confluent":
        from clicktide.log.confluent import ConfluentLog

        return ConfluentLog.of(settings)
    from clicktide.log.kafka_python import KafkaPythonLog

    return KafkaPythonLog.of(settings)
