"""Rows to events: the documented mapping, ids, prices, dates and pace."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from itertools import islice
from pathlib import Path

import orjson
import pytest

from bench import replay, samples, user_files
from bench.replay import Dating, Replayed
from bench.user_files import COLUMNS, USER_BEHAVIOR, USER_LOG, Problem

SAMPLE = Path(__file__).resolve().parents[4] / "shared" / "samples" / "user_log_10k.csv"


def replayed(path, *lines, label="", dating=replay.AS_SENT):
    path.write_text("\n".join(lines), "utf-8")
    return list(replay.events(user_files.inspect(path), label, dating))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "f.csv"


def test_a_click(file):
    [row] = replayed(file, "328862,406349,1280,2700,5476,11,11,0,7,1,四川")
    event_id = row.event.pop("event_id")
    assert row.event == {
        "type": "click",
        "user_id": "328862",
        "item_id": "406349",
        "category_id": "1280",
        "merchant_id": "2700",
        "brand_id": "5476",
        "gender": "male",
        "age_range": "7",
        "province": "四川",
    }
    assert event_id.endswith("-1")
    record = row.record(at=7, occurred_at=9)
    assert (record.kind, record.user_id, record.at) == ("good", "328862", 7)
    assert orjson.loads(record.value)["occurred_at"] == 9


def test_a_pay_has_an_order_and_a_price_that_depend_on_the_row_alone(file):
    line = "1,406349,2,3,4,11,11,2,0,0,四川"
    first, second = replayed(file, line, line)
    assert first.event["type"] == "pay"
    assert first.event["order_id"] == "o" + first.event["event_id"] != second.event["order_id"]
    assert first.event["amount"] == second.event["amount"] == replay.price("406349")


def test_prices_are_plausible():
    prices = sorted(replay.price(str(i)) for i in range(20_000))
    assert 100 <= prices[0] < 110
    assert 900_000 < prices[-1] <= 999_900
    assert 12_000 < prices[10_000] < 20_000  # half cost less than about 157.00
    assert replay.price("406349") == 190  # documented: a change would change old replays


@pytest.mark.parametrize(
    ("action", "event_type"), [("0", "click"), ("1", "cart"), ("2", "pay"), ("3", "favorite")]
)
def test_actions(file, action, event_type):
    [row] = replayed(file, f"1,2,3,4,5,11,11,{action},0,0,四川")
    assert row.event["type"] == event_type


@pytest.mark.parametrize(
    ("gender", "expected"),
    [("0", "female"), ("1", "male"), ("2", "unknown"), ("", "unknown"), ("NULL", "unknown")],
)
def test_genders(file, gender, expected):
    [row] = replayed(file, f"1,2,3,4,5,11,11,0,0,{gender},四川")
    assert row.event["gender"] == expected


def test_unknown_age_and_missing_brand_and_province_are_left_out(file):
    for age in ("0", "", "NULL"):
        [row] = replayed(file, f"1,2,3,4,,11,11,0,{age},0,")
        assert not {"age_range", "brand_id", "province"} & set(row.event)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1,2,3,4,5,11,11,9,0,0,四川", "action '9', expected 0, 1, 2 or 3"),
        ("1,2,3,4,5,11,11,0,0,x,四川", "gender 'x', expected 0, 1, 2 or nothing"),
        (",2,3,4,5,11,11,0,0,0,四川", "user_id of 0 characters, expected 1 to 64"),
        ("1,,3,4,5,11,11,0,0,0,四川", "item_id missing"),
        (f"1,2,{'3' * 65},4,5,11,11,0,0,0,四川", "category_id of 65 characters, expected at most 64"),
    ],
)
def test_rows_that_are_no_events_are_named(file, line, reason):
    good = "1,2,3,4,5,11,11,0,0,0,四川"
    assert replayed(file, good, line)[1] == Problem(2, reason)


def test_ids_follow_content_row_and_label(file):
    line = "1,2,3,4,5,11,11,0,0,0,四川"
    ids = [row.event["event_id"] for row in replayed(file, line, line)]
    assert [row.event["event_id"] for row in replayed(file, line, line)] == ids
    assert len({*ids, *(r.event["event_id"] for r in replayed(file, line, line, label="b"))}) == 4
    assert len({*ids, *(r.event["event_id"] for r in replayed(file, line, line, line))}) == 5
    long = replay.event_id(ids[0].split("-")[0], 99_999_999_999)
    assert len(long) == 24
    assert set(long) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_dates_of_user_log(file):
    dating = Dating(year=2015)
    rows = replayed(file, *(f"1,2,3,4,5,{d},0,0,0,四川" for d in ("11,11", "5,1", "2,29")), dating=dating)
    midnight = int(dt.datetime(2015, 11, 11, tzinfo=dt.UTC).timestamp() * 1000)
    assert rows[0].file_ms == midnight + 1
    assert dt.datetime.fromtimestamp(rows[1].file_ms / 1000, dt.UTC).date() == dt.date(2015, 5, 1)
    assert rows[2] == Problem(3, "month '2' and day '29' are no date of 2015")


def test_user_behavior(file):
    rows = replayed(
        file, "7,2,3,pv,1511544070", "7,2,3,buy,x", "7,2,3,cart,1", "7,2,3,fav,2", "7,2,3,steal,2"
    )
    assert [r.event["type"] for r in rows[:4]] == ["view", "pay", "cart", "favorite"]
    assert rows[0].file_ms == 1_511_544_070_000
    assert rows[1].file_ms is None
    assert rows[1].event["amount"] == replay.price("2")
    assert rows[4] == Problem(5, "behavior 'steal', expected pv, buy, cart or fav")
    dated = replayed(file, "7,2,3,pv,5", "7,2,3,pv,-5", dating=Dating(own=True))
    assert dated[1] == Problem(2, "time '-5', expected seconds since 1970")


def test_pace_follows_the_file_and_never_goes_back():
    due = replay.pace(lambda row: row.file_ms, speed=2.0)
    times = [1000, 3000, 2000, None, 9000]
    assert [due(Replayed(1, {}, ms)) for ms in times] == [0.0, 1.0, 1.0, 1.0, 4.0]


@pytest.mark.skipif(not SAMPLE.exists(), reason="the sample is not here")
def test_the_sample_gives_the_known_numbers():
    rows = list(replay.events(user_files.inspect(SAMPLE)))
    assert Counter(r.event["type"] for r in rows) == {"click": 8644, "pay": 1249, "favorite": 101, "cart": 6}
    assert Counter(r.event["gender"] for r in rows) == {"female": 3361, "male": 3299, "unknown": 3340}
    assert len({r.event["event_id"] for r in rows}) == 10_000
    assert any(r.event["user_id"] == "328862" for r in rows)


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
def test_made_files_of_the_same_shape(file, encoding):
    for layout, make in ((USER_LOG, samples.user_log), (USER_BEHAVIOR, samples.user_behavior)):
        samples.write(file, make(300, 5), header=",".join(COLUMNS[layout]), encoding=encoding)
        source = user_files.inspect(file)
        rows = list(replay.events(source))
        assert source.format == layout
        assert len(rows) == 300
        assert all(isinstance(row, Replayed) for row in rows)
        assert list(islice(make(300, 5), 300)) == list(make(300, 5))
