"""The log in memory answers a source as the embedded log does."""

from __future__ import annotations

import random

import pytest
from unit.core.memory_log import MemoryLog

from clicktide.log.embedded import EmbeddedLog
from clicktide.log.port import Outgoing, TopicPartition

PARTITIONS = [TopicPartition("tide.events", p) for p in range(3)]


def said(log, seed):
    """A random talk with one consumer: all its answers, records in the order of each partition."""
    rng, talk = random.Random(seed), []
    admin, producer = log.admin(), log.producer()
    admin.create_topics({"tide.events": 3})
    consumer = log.consumer("group")
    consumer.assign(dict.fromkeys(PARTITIONS, 0))
    for i in range(40):
        one = rng.choice(PARTITIONS)
        match rng.choice(["send", "send", "poll", "pause", "resume", "commit", "seek"]):
            case "send":
                headers = (("a", b"b"),) if rng.random() < 0.3 else ()
                sent = [
                    Outgoing("tide.events", b"k", b"%d.%d" % (i, n), headers, one.partition) for n in range(3)
                ]
                talk.append(producer.send(sent, 1.0))
            case "poll":
                found = [b for _ in range(4) for b in consumer.poll(1000, 0.0)]
                for p in PARTITIONS:
                    its = [b for b in found if b.partition == p.partition]
                    for b in its:
                        talk += zip(b.offsets, b.timestamps, b.keys, b.values, strict=True)
                    talk += [h for b in its for h in (b.headers or [()] * len(b.offsets))]
            case "pause":
                consumer.pause([one])
            case "resume":
                consumer.resume([one])
            case "commit":
                consumer.commit({one: i})
            case "seek":
                consumer.seek(one, 0)
        talk += [consumer.committed(PARTITIONS), consumer.bounds(PARTITIONS)]
    assert set(consumer.topics()) == {"tide.events"}
    return talk


@pytest.mark.parametrize("seed", range(2))
def test_it_is_like_the_embedded_log(tmp_path, seed):
    assert said(MemoryLog(lambda: 7), seed) == said(
        EmbeddedLog(tmp_path / "log.db", 64 << 20, lambda: 7), seed
    )
