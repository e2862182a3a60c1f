"""The embedded log between processes: kill -9 of writers at any moment, readers and writers at once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from contract.log_adapters import WAIT_S, at, records_of

import clicktide
from clicktide.log.embedded import EmbeddedLog
from clicktide.log.port import Outgoing

pytestmark = pytest.mark.embedded

SCRIPT = Path(__file__).with_name("log_writer.py")
SOURCE = Path(clicktide.__file__).parents[1]


class Writer:
    """A writing process; `answered` are the records whose call came back."""

    def __init__(self, path: Path, name: str, size: int) -> None:
        self.answered: set[bytes] = set()
        self.started = threading.Event()
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(path), "t", name, str(size)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if not line.endswith(b"\n"):
                break  # killed in the middle of saying so
            name, first, count = line.split()
            self.answered |= {b"%s:%d:" % (name, i) for i in range(int(first), int(first) + int(count))}
            self.started.set()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        if self.process.stdout is not None:
            self.process.stdout.close()


def stored(log: EmbeddedLog) -> dict[int, list[bytes]]:
    """All records of topic t by partition, from its beginning; their offsets are dense or this fails."""
    consumer = log.consumer("check")
    ends = consumer.bounds([at("t", 0), at("t", 1)])
    consumer.assign(dict.fromkeys(ends, 0))
    found: dict[int, list[bytes]] = {0: [], 1: []}
    while sum(map(len, found.values())) < sum(end for _, end in ends.values()):
        for r in records_of(consumer.poll(1000, 1)):
            assert r.offset == len(found[r.partition])
            found[r.partition].append(r.value)
    consumer.close()
    return found


def check(found: dict[int, list[bytes]], writers: list[Writer]) -> None:
    """Answered is stored, nothing is there twice, in order a writer and partition, and no record is torn."""
    heads = [value[: value.rindex(b":") + 1] for values in found.values() for value in values]
    assert len(heads) == len(set(heads))
    for writer in writers:
        assert writer.answered <= set(heads)
    for values in found.values():
        last: dict[bytes, int] = {}
        for value in values:
            name, number, filling = value.split(b":")
            assert filling == b"x" * (int(number) % 300)
            assert int(number) > last.get(name, -1)
            last[name] = int(number)


@pytest.mark.parametrize("size", [1, 50])
def test_kill_of_writers_loses_and_tears_nothing(tmp_path: Path, size: int) -> None:
    path = tmp_path / "log.db"
    log = EmbeddedLog(path, 1 << 30)
    log.admin().create_topics({"t": 2})
    dead: list[Writer] = []
    survivor = Writer(path, "survivor", size)
    try:
        for round_ in range(5):
            victim = Writer(path, f"victim{round_}", size)
            dead.append(victim)
            assert victim.started.wait(WAIT_S * 3)
            before = len(survivor.answered)
            # Not at a round moment of its own doing: another process is in the middle of something.
            time.sleep(0.013 * round_)
            victim.kill()
            deadline = time.monotonic() + WAIT_S
            while len(survivor.answered) == before:
                assert time.monotonic() < deadline, "the surviving writer stands still"
                time.sleep(0.005)
    finally:
        for writer in [survivor, *dead]:
            writer.kill()
    assert all(writer.answered for writer in [survivor, *dead])
    check(stored(log), [survivor, *dead])


def test_a_reader_follows_writers_of_other_processes(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    log = EmbeddedLog(path, 1 << 30)
    log.admin().create_topics({"t": 2})
    consumer = log.consumer("g")
    consumer.assign({at("t", 0): 0, at("t", 1): 0})
    writers = [Writer(path, name, 20) for name in ("a", "b")]
    following: dict[int, list[bytes]] = {0: [], 1: []}
    deadline = time.monotonic() + WAIT_S * 3
    try:
        while sum(map(len, following.values())) < 2000 or not all(w.answered for w in writers):
            assert time.monotonic() < deadline
            for r in records_of(consumer.poll(300, 1)):
                assert r.offset == len(following[r.partition])
                following[r.partition].append(r.value)
    finally:
        for writer in writers:
            writer.kill()
    while batches := consumer.poll(300, 0):
        for r in records_of(batches):
            following[r.partition].append(r.value)
    check(following, writers)
    assert following == stored(log)


def test_a_write_of_another_process_wakes_a_reader_soon(tmp_path: Path) -> None:
    # Two logs share nothing but the file, as two processes do; this measures no more than "not a poll interval".
    path = tmp_path / "log.db"
    EmbeddedLog(path, 1 << 30).admin().create_topics({"t": 1})
    consumer = EmbeddedLog(path, 1 << 30).consumer("g")
    consumer.assign({at("t"): 0})
    assert consumer.poll(1, 0.3) == []
    producer = EmbeddedLog(path, 1 << 30).producer()
    written: list[float] = []

    def write() -> None:
        producer.send([Outgoing("t", None, b"x")], WAIT_S)
        written.append(time.monotonic())

    timer = threading.Timer(0.1, write)
    timer.start()
    assert consumer.poll(1, 6 * WAIT_S)
    came = time.monotonic()
    timer.join()
    assert came - written[0] < WAIT_S / 2
