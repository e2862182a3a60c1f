"""Brings an environment's log and shards to what this version needs: `python -m deploy.prepare [embedded | stack | cluster]`.

A process of its own, since it is over in a second and what it has to import would stay in its caller's memory. Promises
to be idempotent: topics there, shards migrated; settings come from the environment as for every service.
"""

from __future__ import annotations

import os
import sys

from clicktide import topics
from clicktide.errors import ClicktideError
from clicktide.settings import Settings


def make_topics(settings: Settings) -> None:
    from clicktide.log import open_log

    prefix, partitions = settings.text("topics.prefix"), settings.integer("topics.partitions")
    retention_ms = int(settings.number("topics.retention_h") * 3_600_000)
    admin = open_log(settings).admin()
    try:
        admin.create_topics({prefix + name: partitions for name in topics.ALL}, retention_ms)
    finally:
        admin.close()


def migrate_shards(settings: Settings) -> None:
    from clicktide.sql import migrate
    from clicktide.sql.engine import dsns_of

    for dsn in dsns_of(settings):
        migrate(dsn)


def main() -> int:
    from cli.context import settings_for

    try:
        settings = settings_for(sys.argv[1] if len(sys.argv) > 1 else "embedded")
        make_topics(settings)
        migrate_shards(settings)
    except ClicktideError as e:
        print(e, file=sys.stderr)
    except OSError as e:
        print(f"{e.strerror}: {e.filename}", file=sys.stderr)
    except Exception as e:
        if os.environ.get("TIDE_DEBUG") == "1":
            raise
        print(f"{type(e).__name__}: {' '.join(str(e).split())}", file=sys.stderr)
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
