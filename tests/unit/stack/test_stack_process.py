"""Process records: found again, never mistaken for another process."""

import os
from dataclasses import replace
from pathlib import Path

from deploy.stack.process import (
    ProcessRecord,
    ProcessStat,
    boot_id,
    descendants,
    is_alive,
    parse_stat,
    read_stat,
)


def own_record() -> ProcessRecord:
    stat = read_stat(os.getpid())
    assert stat is not None
    return ProcessRecord("me", stat.pid, stat.ticks, boot_id(), "127.0.0.1:1", 1.5)


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    record = own_record()
    record.save(tmp_path / "run" / "me.json")
    assert ProcessRecord.load(tmp_path / "run" / "me.json") == record
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["me.json"]


def test_no_record_and_a_torn_record_are_none(tmp_path: Path) -> None:
    assert ProcessRecord.load(tmp_path / "none.json") is None
    (tmp_path / "torn.json").write_text('{"name": "x", "pid"')
    assert ProcessRecord.load(tmp_path / "torn.json") is None
    (tmp_path / "other.json").write_text("{}")
    assert ProcessRecord.load(tmp_path / "other.json") is None


def test_only_the_very_process_is_alive() -> None:
    record = own_record()
    assert is_alive(record)
    assert not is_alive(None)
    assert not is_alive(replace(record, ticks=record.ticks + 1)), "same pid, started at another time"
    assert not is_alive(replace(record, boot="another boot"))


def test_stat_with_blanks_and_brackets_in_the_command() -> None:
    fields = "S 7 1 1 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 4242 1000 25 " + "0 " * 28
    stat = parse_stat(f"99 (a (b) c) {fields}")
    assert (stat.pid, stat.state, stat.parent, stat.ticks) == (99, "S", 7, 4242)
    assert stat.rss == 25 * os.sysconf("SC_PAGE_SIZE")
    assert stat.cpu_seconds == 200 / os.sysconf("SC_CLK_TCK")
    assert stat.threads == 1


def test_a_process_whose_first_thread_has_ended_runs_while_another_does() -> None:
    def stat(state: str, threads: int) -> ProcessStat:
        return ProcessStat(9, state, 1, 0, 0, 0.0, threads)

    assert [stat(*of).runs for of in (("S", 3), ("T", 1), ("Z", 2), ("Z", 1))] == [True, True, True, False]


def test_descendants_parents_first() -> None:
    def stat(pid: int, parent: int) -> ProcessStat:
        return ProcessStat(pid, "S", parent, 0, 0, 0.0)

    stats = [stat(5, 3), stat(3, 2), stat(2, 1), stat(9, 1), stat(1, 0)]
    assert [each.pid for each in descendants(stats, [2])] == [3, 5]
    assert [each.pid for each in descendants(stats, [9])] == []
    assert sorted(each.pid for each in descendants(stats, [1])) == [2, 3, 5, 9]
