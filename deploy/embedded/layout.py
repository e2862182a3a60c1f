"""What a data directory was laid out with, which later releases must go on with whatever their config.json says."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from urllib.parse import quote

from deploy.embedded.places import Places


def laid_out(places: Places) -> dict[str, int]:
    """The count of shards that is fixed there, as a Storm option; nothing where nothing is stored yet."""
    for path in places.shards:
        try:
            with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
                found = connection.execute("SELECT shards FROM placement WHERE id=1").fetchone()
        except sqlite3.Error:
            continue  # not there, or no tables in it yet: whoever opens it for good says what is wrong with it
        if found:
            return {"tide.shards.count": int(found[0])}
    return {}
