"""`./tide replay` and `./tide generate` as processes, against a scripted collector and the embedded log."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from fake_collector import fake_collector

import cli.main
from bench import samples, truth
from clicktide import topics
from clicktide.log import open_log
from clicktide.log.port import TopicPartition
from clicktide.settings import Settings

pytestmark = pytest.mark.embedded

ROOT = Path(__file__).resolve().parents[3]
PATIENCE_S = 60


@pytest.fixture
def collector():
    with fake_collector() as server:
        yield server


def environment():
    own = {k: v for k, v in os.environ.items() if not k.startswith("TIDE_")}
    return {**own, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}


def start(*args):
    return subprocess.Popen(
        [sys.executable, "-m", "cli.main", *map(str, args)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def tide(*args):
    """(exit code, what it said)."""
    process = start(*args)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert "Traceback" not in err
    return process.returncode, out + err


@pytest.fixture
def user_log(tmp_path):
    path = tmp_path / "user_log.csv"
    lines = list(samples.user_log(1200, 1))
    lines[4:4] = ["", "1,2,3"]
    samples.write(path, iter(lines), encoding="gb18030")
    return path


def test_a_replay_sends_each_row_once_and_in_order(collector, user_log, tmp_path):
    collector.faults.extend([503, "reset", 429])
    out = tmp_path / "t.jsonl"
    code, said = tide("replay", user_log, "--to", collector.url, "--truth", out, "--data-dir", tmp_path)
    assert code == 0, said
    assert "row 5 skipped: blank" in said
    assert "row 6 skipped: 3 columns, expected 11" in said
    assert "rows skipped: blank 1, unusable 1" in said
    events = collector.events()
    assert len({e["event_id"] for e in events}) == len(events) == 1200
    assert collector.compressed
    by_user: dict[str, list[int]] = {}
    for event in events:
        by_user.setdefault(event["user_id"], []).append(int(event["event_id"].rpartition("-")[2]))
    assert all(rows == sorted(rows) for rows in by_user.values())
    lines = list(truth.read(out))
    assert sorted(line.event["event_id"] for line in lines) == sorted(e["event_id"] for e in events)
    assert {line.kind for line in lines} == {"good"}


def test_a_lost_answer_is_sent_again_with_the_same_ids(collector, user_log, tmp_path):
    collector.faults.extend(["lost", "lost"])
    out = tmp_path / "t.jsonl"
    code, said = tide("replay", user_log, "--to", collector.url, "--truth", out, "--data-dir", tmp_path)
    assert code == 0, said
    ids = Counter(e["event_id"] for e in collector.events())
    assert len(ids) == 1200
    assert max(ids.values()) >= 2
    assert len(list(truth.read(out))) == 1200
    assert "requests sent again 2" in said


def test_a_label_replays_anew(collector, user_log, tmp_path):
    for label in ("", "", "second"):
        tide("replay", user_log, "--to", collector.url, "--run", label, "--data-dir", tmp_path)
    assert len({e["event_id"] for e in collector.events()}) == 2400


def test_dates_and_speed(collector, tmp_path):
    path = tmp_path / "UserBehavior.csv"
    path.write_text("1,2,3,pv,1511544070\n1,2,3,buy,1511544071\n", "utf-8")
    begun = time.monotonic()
    code, said = tide(
        "replay", path, "--to", collector.url, "--dated", "2017", "--speed", "2", "--data-dir", tmp_path
    )
    assert code == 0, said
    assert time.monotonic() - begun >= 0.5
    assert [e["occurred_at"] for e in collector.events()] == [1_511_544_070_000, 1_511_544_071_000]


def test_generated_traffic_and_its_truth(collector, tmp_path):
    collector.faults.extend([None, 503, "lost"])
    out = tmp_path / "t.jsonl"
    options = "--rate 500 --seconds 2 --seed 5 --duplicates 0.05 --malformed 0.05 --late 0.05 --orders 0.1"
    code, said = tide(
        "generate", *options.split(), "--truth", out, "--to", collector.url, "--data-dir", tmp_path
    )
    assert code == 0, said
    lines = list(truth.read(out))
    kinds = Counter(line.kind for line in lines)
    assert set(kinds) == {"good", "duplicate", "late"}  # the collector takes nothing malformed
    assert "malformed and refused" in said
    accepted = Counter(line.event["event_id"] for line in lines)
    taken = Counter(e["event_id"] for e in collector.events())
    assert set(accepted) == set(taken)
    assert all(taken[event_id] >= n for event_id, n in accepted.items())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_cleanly_with_a_complete_truth(collector, tmp_path, number):
    out = tmp_path / "t.jsonl"
    options = ("--rate", 500, "--seconds", 600, "--seed", 1, "--truth", out, "--data-dir", tmp_path)
    process = start("generate", *options, "--to", collector.url)
    until = time.monotonic() + PATIENCE_S
    while len(collector.taken) < 100 and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, said
    assert "stopped after" in said
    assert "Traceback" not in said
    lines = list(truth.read(out))
    assert {line.event["event_id"] for line in lines} == {e["event_id"] for e in collector.events()}
    assert not any(line.unknown for line in lines)


def test_a_kill_leaves_a_truth_of_accepted_records_only(collector, tmp_path):
    out = tmp_path / "t.jsonl"
    options = ("--rate", 2000, "--seconds", 600, "--seed", 1, "--truth", out, "--data-dir", tmp_path)
    process = start("generate", *options, "--to", collector.url)
    until = time.monotonic() + PATIENCE_S
    # What is accepted is written a moment later.
    while (
        len(collector.taken) < 500 or not out.exists() or not out.stat().st_size
    ) and time.monotonic() < until:
        time.sleep(0.02)
    process.kill()
    process.communicate(timeout=PATIENCE_S)
    written = {line.event["event_id"] for line in truth.read(out)}
    assert written
    assert written <= {e["event_id"] for e in collector.events()}


def test_to_the_log_itself(tmp_path):
    settings = Settings({"log.path": str(tmp_path / "log.sqlite")})
    log = open_log(settings)
    admin = log.admin()
    admin.create_topics({"tide.events": 2})
    admin.close()
    out = tmp_path / "t.jsonl"
    options = ["--rate", "1000", "--seconds", "1", "--seed", "5", "--malformed", "0.1", "--to", "kafka"]
    code, said = tide("generate", *options, "--truth", out, "--data-dir", tmp_path)
    assert code == 0, said
    consumer = log.consumer("test")
    partitions = [TopicPartition(f"tide.{topics.EVENTS}", p) for p in range(2)]
    consumer.assign(dict.fromkeys(partitions, 0))
    stored = []
    until = time.monotonic() + PATIENCE_S
    while len(stored) < 1000 and time.monotonic() < until:
        for batch in consumer.poll(1000, 1.0):
            stored += batch.values
    consumer.close()
    lines = list(truth.read(out))
    assert Counter(line.kind for line in lines)["malformed"] > 50
    assert sorted(stored) == sorted(
        line.raw
        if line.raw is not None
        else json.dumps(line.event, ensure_ascii=False, separators=(",", ":")).encode()
        for line in lines
    )


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ("replay {tmp}/none.csv", "No such file"),
        ("replay {tmp}", "it is a directory"),
        ("replay {odd}", "neither user_log.csv"),
        ("replay {log} --rate 1 --speed 2", "expected one of them"),
        ("replay {log} --speed 2", "--dated YEAR"),
        ("replay {log} --rate 0", "expected a number above 0"),
        ("replay {log} --dated soon", "expected a year"),
        ("replay {log} --to ftp://x", "expected http://host:port or kafka"),
        ("replay {log} --to http://127.0.0.1:1", "nothing answers at http://127.0.0.1:1"),
        ("replay {log} --truth {tmp}", "cannot write the truth file"),
        ("replay {log} --to kafka", "there is no such topic"),
        ("generate --rate 1 --seconds 1 --seed 1 --truth {tmp}/t --late 2", "late: expected a share"),
        ("generate --rate 0 --seconds 1 --seed 1 --truth {tmp}/t", "expected numbers above 0"),
        ("generate --rate 1 --seconds 1 --seed 1", "--truth"),
        ("ledger {tmp}/none", "cannot read the truth file"),
        ("ledger {log}", "line 1: not a truth record"),
    ],
)
def test_mistakes_are_named_in_one_line(args, words, collector, user_log, tmp_path, capsys, monkeypatch):
    for name in [n for n in os.environ if n.startswith("TIDE_")]:
        monkeypatch.delenv(name)
    odd = tmp_path / "odd.csv"
    odd.write_bytes(bytes(range(256)) * 4)
    places = {"tmp": tmp_path, "odd": odd, "log": user_log}
    given = args.format(**places).split()
    if given[0] == "replay" and "--to" not in given:
        given += ["--to", collector.url]
    # In this process: an interpreter's start for each would take longer than all the rest.
    code = cli.main.main([*given, "--data-dir", str(tmp_path)])
    assert code in (1, 2)
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_the_sample_maker_writes_files(tmp_path):
    path = tmp_path / "made.csv"
    done = subprocess.run(
        [sys.executable, "-m", "bench.samples", str(path), "--rows", "5", "--header"],
        cwd=ROOT,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0
    assert path.read_text("utf-8").splitlines()[1:] == list(islice(samples.user_log(5, 1), 5))
