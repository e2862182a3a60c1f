"""The sender against a scripted target: order, retries with the same ids, refusals, and what the truth says."""

from __future__ import annotations

import threading
from collections import Counter, deque

import pytest

from bench import truth
from bench.sender import Sender
from bench.targets import Away, HttpTarget, Refused, TargetError
from bench.truth import Record, TruthWriter

PATIENCE_S = 10


class Scripted:
    """A target that follows a script: each request takes the next step, `None` accepts all."""

    name = "scripted"

    def __init__(self, *script, lanes=1) -> None:
        self.script, self.lanes = deque(script), lanes
        self.taken: list[Record] = []
        self.requests = 0
        self.asked = threading.Event()
        self.lock = threading.Lock()

    def probe(self, patience_s) -> None: ...

    def connect(self):
        return self

    def close(self) -> None: ...

    def send(self, records):
        with self.lock:
            self.requests += 1
            self.asked.set()
            step = self.script.popleft() if self.script else None
            if isinstance(step, Exception) and getattr(step, "taken_all_the_same", False):
                self.taken += records
            if isinstance(step, Exception):
                raise step
            verdicts = step(records) if step else [None] * len(records)
            self.taken += [r for r, v in zip(records, verdicts, strict=True) if v is None]
            return verdicts


def lost_answer():
    error = Away("lost", retry_after_s=0)
    error.taken_all_the_same = True
    return error


def record(n, user="u", kind="good"):
    return Record(kind, user, b'{"event_id":"x-%d"}' % n, n)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "t"


@pytest.fixture
def writer(path):
    writer = TruthWriter(path)
    yield writer
    writer.close()


def ids(path):
    return [(line.kind, line.unknown, line.event and line.event["event_id"]) for line in truth.read(path)]


def test_what_is_accepted_is_in_the_truth_in_order(path, writer):
    target = Scripted()
    sender = Sender(target, writer)
    sender.put(record(n) for n in range(1200))
    assert sender.close(PATIENCE_S)
    assert ids(path) == [("good", False, f"x-{n}") for n in range(1200)]
    assert sender.stats.accepted == {"good": 1200}
    assert sender.stats.delays_ms.total() == 1200


def test_a_users_records_keep_their_order_over_lanes_and_retries():
    target = Scripted(*[Away("busy", retry_after_s=0)] * 3, lost_answer(), lanes=3)
    sender = Sender(target)
    for n in range(600):
        sender.put([record(n, user=f"u{n % 7}")])
    assert sender.close(PATIENCE_S)
    for user in range(7):
        its = list(dict.fromkeys(r.at for r in target.taken if r.user_id == f"u{user}"))
        assert its == sorted(its)
        assert len(its) == len(range(user, 600, 7))


def test_a_lost_answer_is_sent_again_and_written_once(path, writer):
    target = Scripted(lost_answer())
    sender = Sender(target, writer)
    sender.put([record(1)])
    assert sender.close(PATIENCE_S)
    assert len(target.taken) == 2
    assert len(ids(path)) == 1
    assert sender.stats.retries == 1


def test_refused_together_is_tried_in_halves(path, writer):
    def no_nine(records):
        if any(r.at == 9 for r in records):
            if len(records) > 1:
                raise Refused("status_400")
            return ["bad_value"]
        return [None] * len(records)

    target = Scripted(*[no_nine] * 100)
    sender = Sender(target, writer)
    sender.put([record(n, kind="malformed" if n == 9 else "good") for n in range(20)])
    assert sender.close(PATIENCE_S)
    assert [r.at for r in target.taken] == [n for n in range(20) if n != 9]
    assert sender.stats.rejected == {"bad_value": 1}
    assert not sender.stats.lost
    assert len(ids(path)) == 19


def test_a_good_record_that_is_refused_is_counted_as_lost(path, writer):
    sender = Sender(Scripted(lambda records: ["no"] * len(records)), writer)
    sender.put([record(1)])
    assert sender.close(PATIENCE_S)
    assert sender.stats.lost == {"no": 1}
    assert ids(path) == []


def test_stopping_in_the_middle_leaves_the_unknown_in_the_truth(path, writer):
    target = Scripted(*[Away("gone")] * 1000)
    sender = Sender(target, writer)
    sender.put([record(1)])
    assert target.asked.wait(PATIENCE_S)
    assert not sender.close(0.05)
    assert ids(path) == [("good", True, "x-1")]
    assert sender.stats.unknown == 1


def test_what_was_surely_not_taken_is_not_in_the_truth(path, writer):
    target = Scripted(*[Away("refused", maybe_taken=False)] * 1000)
    sender = Sender(target, writer)
    sender.put([record(1)])
    assert target.asked.wait(PATIENCE_S)
    assert not sender.close(0.05)
    assert ids(path) == []


def test_a_hopeless_target_ends_the_run():
    sender = Sender(Scripted(TargetError("no key")))

    def run():
        sender.put([record(1)])
        sender.close(PATIENCE_S)

    with pytest.raises(TargetError, match="no key"):
        run()


def test_a_full_lane_blocks_and_says_so():
    gate = threading.Event()
    target = Scripted(lambda records: [None for _ in records if gate.wait(PATIENCE_S)])
    sender = Sender(target, capacity=10)
    waits = Counter()

    def on_wait():
        waits["n"] += 1
        gate.set()

    sender.on_wait = on_wait
    for n in range(40):
        sender.put([record(n)])
    assert sender.close(PATIENCE_S)
    assert waits["n"] >= 1
    assert len(target.taken) == 40


class StoppedMeanwhile(deque):
    """A queue that holds up whoever takes from it, until the sender stops or for a moment."""

    stopping: threading.Event

    def popleft(self):
        record = super().popleft()
        self.stopping.wait(0.2)
        return record


def test_what_is_on_its_way_from_the_queue_to_the_target_is_waited_for():
    target = Scripted(Away("busy", retry_after_s=0))
    sender = Sender(target)
    (lane,) = sender._lanes
    lane._queue = StoppedMeanwhile()
    lane._queue.stopping = sender._stopping
    sender.put([record(1)])
    assert sender.close(PATIENCE_S)
    assert len(target.taken) == 1


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://h:99999999", "http://h:x"])
def test_addresses_are_checked(url):
    with pytest.raises(TargetError, match="expected http://host:port or kafka"):
        HttpTarget(url)


def test_an_address_without_a_path_is_a_collectors():
    assert HttpTarget("127.0.0.1:8080").name == "http://127.0.0.1:8080/v1/events"
    assert HttpTarget("https://h/in").name == "https://h:443/in"
