"""What the embedded log promises beyond the port: its file, its faults, its limits."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
from contract.log_adapters import WAIT_S, at, records_of, values

from clicktide.errors import LogError, LogUnavailable, OffsetOutOfRange, SettingError, UnknownTopic
from clicktide.log import open_log
from clicktide.log.embedded import EmbeddedLog, admin, chunk, retention
from clicktide.log.port import Outgoing
from clicktide.settings import Settings

MB = 1 << 20
DAY_MS = 24 * 3600 * 1000


class Clock:
    """Milliseconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now


def opened(path: Path, size: int = 1 << 30, clock: Clock | None = None) -> EmbeddedLog:
    log = EmbeddedLog(path / "log.db", size, clock or Clock())
    log.admin().create_topics({"t": 1})
    return log


def fill(log: EmbeddedLog, kilobytes: int, topic: str = "t", partition: int = 0) -> int:
    """Write so much in calls of five records of 10 kB; how many records. Stops at the first refusal."""
    producer = log.producer()
    for count in range(0, kilobytes // 10, 5):
        try:
            producer.send([Outgoing(topic, None, bytes(10_000), partition=partition)] * 5, WAIT_S)
        except LogUnavailable:
            return count
    return kilobytes // 10


def test_needs_a_path() -> None:
    with pytest.raises(SettingError, match=r"log\.path"):
        open_log(Settings({}))


def test_opening_touches_no_disk(tmp_path: Path) -> None:
    open_log(Settings({"log.path": str(tmp_path / "no" / "log.db")})).producer()
    assert list(tmp_path.iterdir()) == []


def test_all_is_there_after_a_restart(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.producer().send([Outgoing("t", b"k", b"v", (("h", b"1"),))], WAIT_S)
    log.consumer("g").commit({at("t"): 1})
    info = log.admin().topics()
    again = EmbeddedLog(tmp_path / "log.db", 1 << 30)
    consumer = again.consumer("g")
    assert again.admin().topics() == info
    assert consumer.committed([at("t")]) == {at("t"): 1}
    assert consumer.fetch(at("t"), [0], WAIT_S)[0].value == b"v"


def test_every_commit_goes_to_the_disk(tmp_path: Path) -> None:
    log = opened(tmp_path)
    opener = log.admin()
    opener.topics()
    with opener._file.reading() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_threads_share_commits(tmp_path: Path) -> None:
    log = opened(tmp_path)
    producer = log.producer()
    blocker = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    threads = [
        threading.Thread(target=producer.send, args=([Outgoing("t", None, b"%d" % n)], WAIT_S))
        for n in range(20)
    ]
    # One leads alone and waits for the file, the others for it.
    for waiting, some in ((0, threads[:1]), (19, threads[1:])):
        for thread in some:
            thread.start()
        deadline = time.monotonic() + WAIT_S
        while len(log._writer._waiting) != waiting or not log._writer._writing:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    blocker.execute("ROLLBACK")
    for thread in threads:
        thread.join()
    assert log.consumer("g").bounds([at("t")]) == {at("t"): (0, 20)}
    assert blocker.execute("SELECT count(*) FROM chunks").fetchone() == (2,)
    blocker.close()


def test_one_sender_s_error_is_not_the_others(tmp_path: Path) -> None:
    log = opened(tmp_path)
    producer = log.producer()
    blocker = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    outcomes: dict[str, object] = {}

    def send(topic: str, timeout_s: float = WAIT_S) -> None:
        try:
            outcomes[topic] = producer.send([Outgoing(topic, None, b"x")], timeout_s)
        except LogError as e:
            outcomes[topic] = e

    threads = [threading.Thread(target=send, args=(t,)) for t in ("t", "no")]
    for thread in threads:
        thread.start()
    blocker.execute("ROLLBACK")
    for thread in threads:
        thread.join()
    blocker.close()
    assert outcomes["t"] == [(0, 0)]
    assert isinstance(outcomes["no"], UnknownTopic)


def test_a_busy_file_is_unavailable_in_time_and_nothing_is_written(tmp_path: Path) -> None:
    log = opened(tmp_path)
    producer = log.producer()
    blocker = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    outcomes: list[object] = []

    def send(timeout_s: float) -> None:
        started = time.monotonic()
        try:
            outcomes.append(producer.send([Outgoing("t", None, b"x")], timeout_s))
        except LogUnavailable:
            outcomes.append(time.monotonic() - started)

    # The second is there longer than the one that leads and gives up.
    threads = [threading.Thread(target=send, args=(s,)) for s in (0.1, WAIT_S)]
    for thread in threads:
        thread.start()
    threads[0].join()
    assert isinstance(outcomes[0], float)
    assert outcomes[0] < WAIT_S / 2
    # Readers are never held up by a writer.
    assert log.consumer("g").bounds([at("t")]) == {at("t"): (0, 0)}
    blocker.execute("ROLLBACK")
    blocker.close()
    threads[1].join()
    assert outcomes[1] == [(0, 0)]
    assert log.consumer("g").bounds([at("t")]) == {at("t"): (0, 1)}


def test_who_has_more_time_outlasts_a_leader_that_gives_up(tmp_path: Path) -> None:
    log = opened(tmp_path)
    producer = log.producer()
    producer.send([Outgoing("t", None, b"first")], WAIT_S)
    blocker = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    outcomes: dict[str, object] = {}

    def send(name: str, timeout_s: float) -> None:
        try:
            outcomes[name] = producer.send([Outgoing("t", None, name.encode())], timeout_s)
        except LogUnavailable as e:
            outcomes[name] = e

    threads = []
    # One leads alone; when it gives up, the second takes the others along, and gives up too.
    for waiting, (name, timeout_s) in enumerate((("one", 2.0), ("two", 3.0), ("three", WAIT_S))):
        threads.append(threading.Thread(target=send, args=(name, timeout_s)))
        threads[-1].start()
        deadline = time.monotonic() + WAIT_S
        while len(log._writer._waiting) != waiting or not log._writer._writing:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    threads[0].join()
    threads[1].join()
    assert "three" not in outcomes
    blocker.execute("ROLLBACK")
    blocker.close()
    threads[2].join()
    assert isinstance(outcomes["one"], LogUnavailable)
    assert isinstance(outcomes["two"], LogUnavailable)
    assert outcomes["three"] == [(0, 1)]


def test_what_all_have_given_up_is_not_written_with_a_later_record(tmp_path: Path) -> None:
    log = opened(tmp_path)
    producer = log.producer()
    blocker = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")

    def send(timeout_s: float) -> None:
        with pytest.raises(LogUnavailable):
            producer.send([Outgoing("t", None, b"%f" % timeout_s)], timeout_s)

    sent = []
    with ThreadPoolExecutor() as pool:
        # One leads alone; the second takes the third along, and holds it for longer than that has time.
        for waiting, timeout_s in enumerate((0.5, 1.5, 1.0)):
            sent.append(pool.submit(send, timeout_s))
            deadline = time.monotonic() + WAIT_S
            while len(log._writer._waiting) < waiting and log._writer._writing:
                assert time.monotonic() < deadline
                time.sleep(0.001)
    for told in sent:
        told.result()
    blocker.execute("ROLLBACK")
    blocker.close()
    assert producer.send([Outgoing("t", None, b"later")], WAIT_S) == [(0, 0)]
    assert log.consumer("g").bounds([at("t")]) == {at("t"): (0, 1)}


def test_a_topic_made_anew_between_plan_and_write_takes_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = opened(tmp_path)
    producer, other = log.producer(), log.admin()
    changes = [lambda: other.delete_topics(["t"]), lambda: other.create_topics({"t": 1})]

    def refuse(key: int) -> None:
        while changes:
            changes.pop(0)()

    monkeypatch.setattr(log._writer._retention, "refuse", refuse)
    assert producer.send([Outgoing("t", None, b"x")], WAIT_S) == [(0, 0)]
    assert changes == []
    consumer = log.consumer("g")
    consumer.assign({at("t"): 0})
    assert values(records_of(consumer.poll(10, 0))) == [b"x"]


def test_a_full_disk_is_unavailable_and_heals(tmp_path: Path) -> None:
    log = opened(tmp_path)
    producer = log.producer()
    assert producer.send([Outgoing("t", None, b"before")], WAIT_S) == [(0, 0)]
    # The page limit of a connection answers as a full disk does.
    with log._writer._file.reading() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(LogUnavailable, match="full"):
        producer.send([Outgoing("t", None, bytes(500_000))], WAIT_S)
    # The connection is a new one, without the limit.
    assert producer.send([Outgoing("t", None, b"after")], WAIT_S) == [(0, 1)]
    consumer = log.consumer("g")
    consumer.assign({at("t"): 0})
    assert values(records_of(consumer.poll(10, 0))) == [b"before", b"after"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_file_is_a_clear_error(tmp_path: Path) -> None:
    log = opened(tmp_path)
    (tmp_path / "log.db").chmod(0o444)
    with pytest.raises(LogError, match="read-only"):
        EmbeddedLog(tmp_path / "log.db", MB).producer().send([Outgoing("t", None, b"x")], WAIT_S)
    assert log.admin().topics()


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LogError, match="cannot be made"):
        EmbeddedLog(tmp_path / "file" / "log.db", MB).admin().topics()


def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "text.db"
    text.write_bytes(b"no database at all, but long enough to be looked at" * 100)
    with pytest.raises(LogError, match="not a log"):
        EmbeddedLog(text, MB).admin().topics()
    other = tmp_path / "other.db"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE mine (x)")
    connection.commit()
    before = other.read_bytes()
    with pytest.raises(LogError, match="not a log"):
        EmbeddedLog(other, MB).admin().topics()
    assert other.read_bytes() == before
    connection.close()


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    opened(tmp_path)
    connection = sqlite3.connect(tmp_path / "log.db")
    connection.execute("PRAGMA user_version = 99")
    connection.commit()
    connection.close()
    with pytest.raises(LogError, match="99"):
        EmbeddedLog(tmp_path / "log.db", MB).admin().topics()


def test_a_changed_byte_is_never_read_as_a_record(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.producer().send([Outgoing("t", None, b"good" * 10)], WAIT_S)
    connection = sqlite3.connect(tmp_path / "log.db")
    connection.execute("UPDATE chunks SET body = zeroblob(length(body))")
    connection.commit()
    connection.close()
    consumer = log.consumer("g")
    consumer.assign({at("t"): 0})
    with pytest.raises(LogError, match="checksum"):
        consumer.poll(10, 0)


def test_a_file_that_was_deleted_takes_no_more_records(tmp_path: Path) -> None:
    log = opened(tmp_path)
    producer, consumer = log.producer(), log.consumer("g")
    producer.send([Outgoing("t", None, b"x")], WAIT_S)
    consumer.assign({at("t"): 0})
    for file in tmp_path.iterdir():
        file.unlink()
    with pytest.raises(LogUnavailable, match="gone"):
        producer.send([Outgoing("t", None, b"y")], WAIT_S)
    with pytest.raises(LogError):
        consumer.poll(1, 0)


def test_a_reader_notices_that_its_topic_was_deleted(tmp_path: Path) -> None:
    log = opened(tmp_path)
    consumer = log.consumer("g")
    consumer.assign({at("t"): 0})
    log.admin().delete_topics(["t"])
    log.admin().create_topics({"t": 1})
    with pytest.raises(UnknownTopic):
        consumer.poll(1, 0)


def test_deleted_topics_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "_DROP_CHUNKS", 6)
    log = opened(tmp_path)
    producer = log.producer()
    for _ in range(20):
        producer.send([Outgoing("t", None, b"x")], WAIT_S)
    log.consumer("g").commit({at("t"): 5})
    log.admin().delete_topics(["t"])
    connection = sqlite3.connect(tmp_path / "log.db")
    for table in ("topics", "partitions", "chunks", "commits"):
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    connection.close()


def test_deleted_records_leave_the_disk(tmp_path: Path) -> None:
    log = opened(tmp_path)
    producer = log.producer()
    for first in range(0, 20, 5):
        producer.send(
            [Outgoing("t", None, b"secret-%02d" % i * 3000) for i in range(first, first + 5)], WAIT_S
        )
    log.admin().delete_records({at("t"): 12})
    connection = sqlite3.connect(tmp_path / "log.db")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    stored = (tmp_path / "log.db").read_bytes()
    assert b"secret-12" in stored
    assert [i for i in range(12) if b"secret-%02d" % i in stored] == []


def test_chunks_stay_small_whatever_is_sent(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.producer().send([Outgoing("t", None, b"x") for _ in range(3500)], WAIT_S)
    log.producer().send([Outgoing("t", None, bytes(100_000)) for _ in range(12)], WAIT_S)
    connection = sqlite3.connect(tmp_path / "log.db")
    rows = connection.execute("SELECT base, count, length(body) FROM chunks ORDER BY base").fetchall()
    connection.close()
    assert all(count <= chunk.MAX_RECORDS and size <= chunk.MAX_BYTES + 100_000 for _, count, size in rows)
    assert all(a[0] + a[1] == b[0] for a, b in pairwise(rows))


# Retention


def test_size_drops_the_oldest_that_every_group_has_read(tmp_path: Path) -> None:
    log = opened(tmp_path, MB)
    groups = [log.consumer("a"), log.consumer("b")]
    for written in range(50, 1050, 50):
        assert fill(log, 500) == 50
        groups[0].commit({at("t"): written})
        groups[1].commit({at("t"): written - 20})
    earliest, end = groups[0].bounds([at("t")])[at("t")]
    assert end == 1000
    # What is kept: about the limit, and all that b has not read.
    assert end - 170 <= earliest <= end - 70
    groups[0].assign({at("t"): earliest})
    assert records_of(groups[0].poll(1, 0))[0].offset == earliest
    groups[0].seek(at("t"), earliest - 1)
    with pytest.raises(OffsetOutOfRange) as e:
        groups[0].poll(1, 0)
    assert e.value.earliest == earliest
    # The write-ahead log beside it is bounded by SQLite's checkpoints.
    assert (tmp_path / "log.db").stat().st_size < 4 * MB
    assert (tmp_path / "log.db-wal").stat().st_size < 12 * MB


def test_what_a_group_has_not_read_stays_and_the_log_is_full(tmp_path: Path) -> None:
    log = opened(tmp_path, MB)
    log.admin().create_topics({"dead": 1})
    consumer = log.consumer("a")
    consumer.commit({at("t"): 10})
    written = fill(log, 3000)
    assert 100 < written < 140
    with pytest.raises(LogUnavailable, match=r"full.*log\.retention_mb"):
        log.producer().send([Outgoing("t", None, b"x")], WAIT_S)
    # The others go on for a while: those who read t write there.
    more = fill(log, 3000, "dead")
    assert 5 < more < 40
    # As soon as somebody reads on, all is well.
    consumer.commit({at("t"): written})
    assert fill(log, 300) == 30
    assert consumer.bounds([at("t")])[at("t")][1] == written + 30


def test_a_topic_without_readers_loses_nothing_to_size(tmp_path: Path) -> None:
    log = opened(tmp_path, MB)
    log.admin().create_topics({"dead": 1})
    assert fill(log, 300, "dead") == 30
    consumer = log.consumer("a")
    for written in range(50, 550, 50):
        assert fill(log, 500) == 50
        consumer.commit({at("t"): written})
    assert consumer.bounds([at("dead"), at("t")])[at("dead")] == (0, 30)
    assert consumer.bounds([at("t")])[at("t")][0] > 300


def test_a_partition_that_one_group_has_not_begun_stays(tmp_path: Path) -> None:
    log = opened(tmp_path, MB)
    log.admin().add_partitions("t", 2)
    log.consumer("a").commit({at("t", 0): 0, at("t", 1): 0})
    log.consumer("b").commit({at("t", 1): 0})
    written = fill(log, 600)
    log.consumer("a").commit({at("t", 0): written})
    fill(log, 3000, partition=1)
    assert log.consumer("a").bounds([at("t", 0)])[at("t", 0)] == (0, written)


def test_a_group_that_is_silent_for_a_week_holds_nothing(tmp_path: Path) -> None:
    clock = Clock()
    log = opened(tmp_path, MB, clock)
    log.consumer("gone").commit({at("t"): 0})
    clock.now += 8 * DAY_MS
    consumer = log.consumer("a")
    for written in range(50, 550, 50):
        consumer.commit({at("t"): written - 50})
        assert fill(log, 500) == 50
    assert consumer.bounds([at("t")])[at("t")][0] > 300


def test_age_drops_read_or_not_and_only_where_it_is_set(tmp_path: Path) -> None:
    clock = Clock()
    log = opened(tmp_path, 1 << 30, clock)
    log.admin().create_topics({"short": 1}, retention_ms=3600_000)
    for _ in range(3):
        fill(log, 100)
        fill(log, 100, "short")
        clock.now += 2_000_000
    # A timestamp of the sender's is no age.
    log.producer().send([Outgoing("short", None, b"x", timestamp=5)], WAIT_S)
    log.producer().send([Outgoing("short", None, b"y")], WAIT_S)
    bounds = log.admin().bounds([at("t"), at("short")])
    assert bounds == {at("t"): (0, 30), at("short"): (20, 32)}


def test_what_one_sweep_leaves_the_next_write_drops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    log = opened(tmp_path, 1 << 30, clock)
    for _ in range(400):
        log.producer().send([Outgoing("t", None, bytes(5000))], WAIT_S)
    log.consumer("a").commit({at("t"): 400})
    # The same file with a smaller limit: far more to drop than one sweep does.
    monkeypatch.setattr(retention, "_DROP_CHUNKS", 10)
    producer = EmbeddedLog(tmp_path / "log.db", MB, clock).producer()
    for _ in range(20):
        producer.send([Outgoing("t", None, bytes(200))], WAIT_S)
    connection = sqlite3.connect(tmp_path / "log.db")
    used, real = connection.execute(
        "SELECT (SELECT sum(bytes) FROM partitions), (SELECT sum(length(body) + 64) FROM chunks)"
    ).fetchone()
    connection.close()
    assert used == real
    assert used <= MB * 1.05
