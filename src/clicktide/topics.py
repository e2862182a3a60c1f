"""Topics and the headers of diverted records: every name in one place."""

from __future__ import annotations

EVENTS = "events"
DEAD = "dead"
BACKFILL = "backfill"
TIERS = ("1s", "10s", "1m", "10m")
RETRY = tuple(f"retry.{tier}" for tier in TIERS)
ALL = (EVENTS, *RETRY, DEAD, BACKFILL)

ORIGIN = "tide-origin"  # topic:partition:offset of the record as it was first written
ORIGIN_TIMESTAMP = "tide-origin-timestamp"  # its timestamp, ms
ORIGIN_TOPIC_ID = "tide-origin-topic-id"  # the id of that topic, so that a topic made anew never collides with its former self
ATTEMPT = "tide-attempt"
FIRST_FAILED_AT = "tide-first-failed-at"
NOT_BEFORE = "tide-not-before"
STAGE = "tide-stage"  # parse, redis, mysql.<shard>, poison
ERROR_CLASS = "tide-error-class"
ERROR_CODE = "tide-error-code"
ERROR = "tide-error"  # at most 512 bytes
VERSION = "tide-version"
REPLAY_ID = "tide-replay-id"
REQUEST_ID = "tide-request-id"  # of the HTTP request that brought the record; at most 64 bytes
