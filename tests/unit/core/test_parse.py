"""Parse: every code is reached, nothing raises, the fast way and the slow way agree, neighbours are left alone."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.core.making import DIGEST, NOW, PARSER, event, raw, row

from clicktide import event as event_module
from clicktide import parse as parse_module
from clicktide import row as columns
from clicktide.parse import CODES, Checked, Parser, Rejection, topic_digest
from clicktide.settings import Settings

LIMIT = event_module.MAX_BYTES


def parse(value: bytes | str, timestamp: int = NOW):
    return PARSER.row(value, 7, timestamp, 3, DIGEST)


def code(value: bytes | str) -> str | None:
    found = parse(value)
    return found.code if isinstance(found, Rejection) else None


def sized(size: int, filler: str = "x") -> bytes:
    """A good event of exactly `size` bytes."""
    shell = len(raw(attributes={"a": ""}))
    text = filler * ((size - shell) // len(filler.encode()))
    text += "x" * (size - shell - len(text.encode()))
    made = raw(attributes={"a": text})
    assert len(made) == size
    return made


REFUSED = [
    ("too_large", sized(LIMIT + 1)),
    ("too_large", sized(LIMIT + 1, "漢")),
    ("too_large", b" " * (LIMIT + 1)),
    ("not_utf8", b"\xff"),
    ("not_utf8", b'{"event_id":"\xc3"}'),
    ("not_utf8", raw(page="\ud800")),
    ("not_json", b""),
    ("not_json", b"hello"),
    ("not_json", b"NaN"),
    ("not_json", raw()[:-1]),
    ("not_json", raw() + raw()),
    ("not_json", b"\xef\xbb\xbf" + raw()),
    ("not_json", b"[" * LIMIT),
    ("not_json", b'{"attributes":{"a":' + b"[" * 5000 + b"]" * 5000 + b"}}"),
    ("not_json", raw()[:-1] + b',"zz":NaN}'),
    ("not_json", raw()[:-1] + b',"zz":1e999}'),
    ("not_json", raw()[:-1] + b',"zz":' + b"9" * 5000 + b"}"),
    ("not_json", raw()[:-1] + b',"page":"\\ud800"}'),
    ("not_object", b"null"),
    ("not_object", b"[]"),
    ("not_object", b"true"),
    ("not_object", b'"text"'),
    ("not_object", b"1"),
    ("missing_field", b"{}"),
    ("missing_field", b'{"unknown":1}'),
    *(("missing_field", raw(**{name: None})) for name in ("type", "user_id", "occurred_at")),
    ("missing_field", json.dumps({k: v for k, v in event().items() if k != "event_id"}).encode()),
    ("wrong_type", raw(user_id=1.0)),
    ("wrong_type", raw(user_id=True)),
    ("wrong_type", raw(user_id=["u"])),
    ("wrong_type", raw()[:-1] + b',"user_id":null}'),
    ("wrong_type", raw(event_id=5)),
    ("wrong_type", raw(quantity="1")),
    ("wrong_type", raw(quantity=1.0)),
    ("wrong_type", raw(amount=True)),
    ("wrong_type", raw(amount=12.5)),
    ("wrong_type", raw(occurred_at=1.5)),
    ("wrong_type", raw(attributes=[1])),
    ("wrong_type", raw(attributes="text", unknown=1)),
    ("wrong_type", raw(v="1")),
    ("bad_value", raw(event_id="")),
    ("bad_value", raw(event_id="x" * 65)),
    ("bad_value", raw(user_id="")),
    ("bad_value", raw(user_id=2**63)),
    ("bad_value", raw(user_id=-(2**63) - 1)),
    ("bad_value", raw(type="buy")),
    ("bad_value", raw(gender="f")),
    ("bad_value", raw(amount=-1)),
    ("bad_value", raw(amount=event_module.MAX_AMOUNT + 1)),
    ("bad_value", raw(amount=2**70)),
    ("bad_value", raw(quantity=0)),
    ("bad_value", raw(item_id="")),
    ("bad_value", raw(page="x" * 2049)),
    ("bad_value", raw(occurred_at=-1)),
    ("bad_value", raw(occurred_at="yesterday")),
    ("bad_value", raw(occurred_at="2025-10-09T08:54:00")),
    ("bad_value", raw(occurred_at="1969-12-31T23:59:59Z")),
    ("bad_value", raw(occurred_at="0001-01-01T00:00:00+23:59")),
    ("bad_value", raw(occurred_at=NOW, sent_at="1960-01-01T00:00:00Z")),
    ("bad_value", raw(occurred_at=NOW, sent_at="9999-12-31T23:59:59-23:59")),
    ("missing_order_id", raw(type="order", amount=1)),
    ("missing_order_id", raw(type="refund", amount=1)),
    ("missing_amount", raw(type="pay", order_id="o")),
    ("future", raw(occurred_at=NOW + 300_001)),
    ("future", raw(occurred_at=NOW, sent_at=NOW - 300_001)),
    ("future", raw(occurred_at=NOW + 10**9, received_at=NOW + 10**9)),
    ("unsupported_version", raw(v=2)),
    ("unsupported_version", raw(v=-1)),
    ("unsupported_version", raw(v=2**80)),
]


@pytest.mark.parametrize(("expected", "value"), REFUSED)
def test_refusals(expected, value):
    assert code(value) == expected
    if expected != "not_utf8":
        assert code(value.decode()) == expected, "as text"


def test_every_code_is_reached():
    assert {expected for expected, _ in REFUSED} == CODES.keys()


@pytest.mark.parametrize(
    "value",
    [
        sized(LIMIT),
        sized(LIMIT, "漢"),
        raw(event_id="x" * 64),
        raw(user_id="漢" * 64),
        raw(quantity=1_000_000_000),
        raw(type="pay", order_id="o", amount=0),
        raw(type="order", order_id="o", amount=event_module.MAX_AMOUNT),
        raw(occurred_at=0),
        raw(occurred_at="1970-01-01T00:00:00Z"),
        raw(occurred_at=NOW + 300_000),
        raw(v=0),
        raw(v=1),
        raw(page=""),
        raw(attributes={"big": 2**70}),
        raw(big=2**70, nul="\0", nested=[[[{}]]], null=None),
        b"  " + raw() + b"\n",
    ],
)
def test_accepted(value):
    assert code(value) is None
    assert code(value.decode()) is None


def test_a_row_has_every_column_at_its_place():
    full = event(
        "e9",
        type="pay",
        user_id=42,
        occurred_at="2025-10-09T16:53:00.5+08:00",
        item_id="i",
        category_id="c",
        merchant_id="m",
        brand_id="b",
        order_id="o",
        amount=1999,
        quantity=3,
        gender="female",
        age_range="2",
        province="浙江",
        channel="app",
        device_id="d",
        session_id="s",
        anonymous_id="a",
        page="/p",
        received_at=NOW - 5,
        v=1,
        attributes={"known": 1},
        unknown=[2],
    )
    made = dict(zip(columns.COLUMNS, parse(json.dumps(full).encode()), strict=True))
    shard = made.pop("shard")
    assert 0 <= shard < 64
    assert json.loads(made.pop("extra")) == {
        "device_id": "d",
        "session_id": "s",
        "anonymous_id": "a",
        "page": "/p",
        "attributes": {"known": 1, "unknown": [2]},
    }
    assert len(made.pop("fingerprint")) == 8
    assert made == {
        "event_id": "e9",
        "type": "pay",
        "user_id": "42",
        "occurred_at": 1_759_999_980_500,
        "received_at": NOW - 5,
        "item_id": "i",
        "category_id": "c",
        "merchant_id": "m",
        "brand_id": "b",
        "order_id": "o",
        "amount": 1999,
        "quantity": 3,
        "gender": "female",
        "age_range": "2",
        "province": "浙江",
        "channel": "app",
        "topic_id": DIGEST,
        "partition": 3,
        "offset": 7,
    }


def test_defaults():
    made = parse(raw())
    assert (made[columns.QUANTITY], made[columns.GENDER], made[columns.EXTRA]) == (1, "unknown", None)
    assert made[columns.RECEIVED_AT] == NOW, "the log's timestamp stands in"


@pytest.mark.parametrize("number", [0, 5, -5, 2**63 - 1, -(2**63)])
def test_integer_user_ids_are_their_decimal_text(number):
    as_number, as_text = parse(raw(user_id=number)), parse(raw(user_id=str(number)))
    assert as_number == as_text
    assert as_number[columns.USER_ID] == str(number)


@pytest.mark.parametrize(
    ("skew_ms", "age_ms"), [(0, 0), (3_600_000, 2000), (-3_600_000, 2000), (5 * 86_400_000, 100)]
)
def test_clock_skew_is_corrected(skew_ms, age_ms):
    """The client's clock is off by `skew_ms`; it sent the event `age_ms` after it happened."""
    made = parse(raw(occurred_at=NOW + skew_ms - age_ms, sent_at=NOW + skew_ms))
    assert made[columns.OCCURRED_AT] == NOW - age_ms


def test_a_queue_longer_than_time_itself_ends_at_the_epoch():
    assert parse(raw(occurred_at=0, sent_at=2 * NOW))[columns.OCCURRED_AT] == 0


def test_the_future_counts_from_the_later_of_received_and_written():
    late_received = raw(occurred_at=NOW + 200_000, received_at=NOW - 200_000)
    assert code(late_received) is None
    assert isinstance(PARSER.row(late_received, 1, NOW - 200_000, 0, DIGEST), Rejection)


def test_the_limit_of_the_future_is_a_setting():
    strict = Parser(Settings({"events.future_s": 0}))
    assert isinstance(strict.row(raw(occurred_at=NOW + 1), 1, NOW, 0, DIGEST), Rejection)
    assert not isinstance(strict.row(raw(occurred_at=NOW), 1, NOW, 0, DIGEST), Rejection)


def test_duplicate_keys_the_last_one_wins():
    twice = raw()[:-1] + b',"user_id":"other","zz":1,"zz":2}'
    made = parse(twice)
    assert (made[columns.USER_ID], made[columns.EXTRA]) == ("other", '{"attributes":{"zz":2}}')
    assert code(b'{"event_id":5,' + raw()[1:]) is None
    assert code(raw()[:-1] + b',"event_id":5}') == "wrong_type"


def test_unknown_fields_win_over_attributes_of_the_same_name():
    assert json.loads(parse(raw(attributes={"a": 1}, a=2))[columns.EXTRA]) == {"attributes": {"a": 2}}


def test_details_name_the_field():
    for field, value in (("quantity", 0), ("gender", "x"), ("amount", -1), ("occurred_at", "x")):
        assert field in parse(raw(**{field: value})).detail
    assert "user_id" in parse(raw(user_id=None)).detail


# -- slices


def test_a_bad_record_changes_nothing_for_its_neighbours():
    good = [raw(f"e{i}", user_id=f"u{i}") for i in range(5)]
    alone = [PARSER.row(v, 10 + 2 * i, NOW + i, 3, DIGEST) for i, v in enumerate(good)]
    bad = [value for _, value in REFUSED][:6]
    mixed: list[bytes] = []
    for pair in zip(good, bad, strict=False):
        mixed += pair
    stamps = [NOW + i // 2 for i in range(10)]
    rows, refused = PARSER.slice(mixed, list(range(10, 20)), stamps, 3, DIGEST)
    assert rows == alone
    assert [r.offset for r in refused] == [11, 13, 15, 17, 19]


def test_columns_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="zip"):
        PARSER.slice([raw()], [1, 2], [NOW], 0, DIGEST)


# -- the fingerprint


def test_the_fingerprint_ignores_times_and_context_only():
    base = row("e")[columns.FINGERPRINT]
    for same in ({"occurred_at": 5}, {"province": "x"}, {"page": "/x"}, {"quantity": 1}, {"received_at": 9}):
        assert row("e", **same)[columns.FINGERPRINT] == base, same
    other = [
        row("e", **fields)[columns.FINGERPRINT]
        for fields in (
            {"type": "click"},
            {"user_id": "u2"},
            {"item_id": "x"},
            {"category_id": "x"},
            {"merchant_id": "x"},
            {"brand_id": "x"},
            {"order_id": "x"},
            {"amount": 0},
            {"amount": 1},
            {"quantity": 2},
        )
    ]
    assert len({base, *other}) == 1 + len(other)


def test_the_fingerprint_tells_fields_apart():
    pairs = [
        ({"item_id": "None"}, {}),
        ({"item_id": "a\x1fb", "category_id": "c"}, {"item_id": "a", "category_id": "b\x1fc"}),
        ({"user_id": "u\x1fi", "item_id": "x"}, {"user_id": "u", "item_id": "i\x1fx"}),
    ]
    for a, b in pairs:
        assert row("e", **a)[columns.FINGERPRINT] != row("e", **b)[columns.FINGERPRINT], (a, b)


def test_topic_digests_tell_topics_apart():
    assert len({topic_digest(str(i)) for i in range(1000)}) == 1000
    assert {len(topic_digest(str(i))) for i in range(50)} == {6}


# -- the collector's door


def test_check_makes_what_parse_takes():
    checked = PARSER.check(raw(occurred_at="2025-10-09T08:54:00Z", user_id=7, zz=1), NOW)
    assert isinstance(checked, Checked)
    assert (checked.event_id, checked.user_id) == ("e1", "7")
    made = PARSER.row(checked.value, 0, NOW + 50, 0, DIGEST)
    assert made[columns.RECEIVED_AT] == NOW
    assert made[columns.EXTRA] == '{"attributes":{"zz":1}}'


def test_check_stamps_received_at_over_what_the_client_said():
    checked = PARSER.check(raw(received_at=5), NOW)
    assert json.loads(checked.value)["received_at"] == NOW


def test_check_refuses_what_grows_past_the_limit():
    assert PARSER.check(sized(LIMIT), NOW).code == "too_large"


def test_check_holds_the_future_against_its_own_clock():
    assert PARSER.check(raw(occurred_at=NOW + 300_001, received_at=NOW + 10**9), NOW).code == "future"


# -- properties

ids = st.text(min_size=0, max_size=70) | st.integers(-(2**70), 2**70)
times = (
    st.integers(-10, 2 * NOW)
    | st.integers(NOW - 10**6, NOW + 10**6)
    | st.datetimes(
        timezones=st.sampled_from([UTC, timezone(timedelta(hours=8)), timezone(-timedelta(hours=12))])
    ).map(datetime.isoformat)
    | st.sampled_from(
        ["", "2025-10-09", "2025-10-09T08:54:00", "2025-10-09 08:54:00Z", "0001-01-01T00:00:00+23:59"]
    )
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
anything = st.recursive(
    scalars,
    lambda c: st.lists(c, max_size=3) | st.dictionaries(st.text(max_size=5), c, max_size=3),
    max_leaves=6,
)


def sloppy(good: st.SearchStrategy) -> st.SearchStrategy:
    """Mostly what belongs there, now and then anything."""
    return st.one_of(good, good, good, anything)


objects = st.fixed_dictionaries(
    {
        "event_id": sloppy(st.text(min_size=1, max_size=64)),
        "type": sloppy(st.sampled_from(columns.TYPES)),
        "user_id": sloppy(ids),
        "occurred_at": sloppy(times),
    },
    optional={
        **{name: sloppy(ids) for name in ("item_id", "category_id", "order_id")},
        "amount": sloppy(st.integers(-1, 10**13)),
        "quantity": sloppy(st.integers(0, 5)),
        "gender": sloppy(st.sampled_from(columns.GENDERS)),
        "province": sloppy(st.text(max_size=66)),
        "page": sloppy(st.text()),
        "sent_at": sloppy(times),
        "received_at": sloppy(st.integers(-1, 2 * NOW)),
        "v": sloppy(st.integers(-1, 3)),
        "attributes": anything,
        "unknown": anything,
    },
)


def encoded(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


@settings(max_examples=100, deadline=None)
@given(objects | anything)
def test_whatever_the_object_there_is_one_answer(value):
    """Bytes or text, at once or by the slow way: the same row or the same refusal; and what `check` takes, `row` takes."""
    data = encoded(value)
    as_bytes = parse(data)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        assert as_bytes.code == "not_utf8"
        return
    assert parse(text) == as_bytes
    slow = slowly(data)
    if isinstance(as_bytes, Rejection):
        assert as_bytes.code in CODES
        assert slow == as_bytes
    else:
        assert len(as_bytes) == len(columns.COLUMNS)
        assert slow[1:] == as_bytes[1:]
        json.dumps(as_bytes, allow_nan=False).encode()

    checked = PARSER.check(data, NOW)
    if isinstance(checked, Checked):
        made = PARSER.row(checked.value, 7, NOW, 3, DIGEST)
        assert not isinstance(made, Rejection), made
        assert PARSER.row(checked.value.decode(), 7, NOW, 3, DIGEST) == made
        assert (made[columns.EVENT_ID], made[columns.USER_ID]) == (checked.event_id, checked.user_id)
        assert 0 <= made[columns.OCCURRED_AT] <= NOW + 300_000


hostile = st.sampled_from([value for _, value in REFUSED]) | st.sampled_from(
    [
        b"",
        b"1,2",
        b"\0",
        raw() + b"," + raw(),
        b"[" + raw() + b"]",
        raw()[:-1],
        b"\xef\xbb\xbf" + raw(),
        raw() + b"\n" + raw(),
    ]
)
texts_with_separators = st.text(st.sampled_from('\n\r\\",[]{}\x00\x85\u2028a漢'), min_size=1, max_size=8)
good = st.builds(
    raw,
    event_id=texts_with_separators,
    user_id=texts_with_separators,
    item_id=st.none() | texts_with_separators,
    page=st.none() | texts_with_separators,
    attributes=st.none() | st.dictionaries(texts_with_separators, texts_with_separators, max_size=2),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(hostile | good | objects.map(encoded), max_size=12))
def test_a_slice_is_its_records_one_by_one(values):
    offsets, stamps = list(range(5, 5 + len(values))), [NOW + i for i in range(len(values))]
    rows, refused = PARSER.slice(values, offsets, stamps, 3, DIGEST)
    alone = [PARSER.row(v, o, t, 3, DIGEST) for v, o, t in zip(values, offsets, stamps, strict=True)]
    assert rows == [r for r in alone if not isinstance(r, Rejection)]
    assert [(r.offset, r.code, r.detail) for r in refused] == [
        (o, r.code, r.detail) for o, r in zip(offsets, alone, strict=True) if isinstance(r, Rejection)
    ]


@settings(max_examples=200, deadline=None)
@given(objects)
def test_what_is_taken_without_asking_the_rules_is_what_they_take(value):
    """`sent_at` makes them be asked; and when it was sent as it was received, it changes nothing else."""
    received = value.get("received_at", NOW)
    asked = parse(encoded({**value, "sent_at": received}))
    value.pop("sent_at", None)
    plain = parse(encoded(value))
    if isinstance(received, int) and received >= NOW:
        assert (asked[0] if isinstance(asked, Rejection) else asked) == (
            plain[0] if isinstance(plain, Rejection) else plain
        )


def test_nested_too_deep_is_refused_alone(monkeypatch):
    """What decodes may still be too deep to be encoded: how deep that is depends on who calls."""
    encode = parse_module._encode

    def shallow(extra):
        if extra.attributes:
            raise RecursionError
        return encode(extra)

    def shallow_lines(found):
        return b"".join(
            [shallow(x) + b"\n" if isinstance(x, parse_module._Extra) else encode(x) + b"\n" for x in found]
        )

    values = [raw("e1", page="/1"), raw("e2", attributes={"deep": 1}), b"bad", raw("e4", page="/4")]
    whole, _ = PARSER.slice(values, range(4), [NOW] * 4, 3, DIGEST)
    monkeypatch.setattr(parse_module, "_encode", shallow)
    monkeypatch.setattr(parse_module, "_encode_lines", shallow_lines)
    rows, refused = PARSER.slice(values, range(4), [NOW] * 4, 3, DIGEST)
    assert rows == [whole[0], whole[2]]
    assert [(r.offset, r.code) for r in refused] == [(1, "bad_value"), (2, "not_json")]


def slowly(data: bytes):
    """The row without the fast way: an unknown field makes it give up, and is taken out of the answer again."""
    try:
        found = json.loads(data)
    except ValueError:
        return parse(data)
    if not isinstance(found, dict):
        return parse(data)
    attributes = found.get("attributes")
    if attributes is not None and not isinstance(attributes, dict):
        return parse(data)
    made = parse(encoded({**found, "slow": 1}))
    if isinstance(made, Rejection):
        return made
    extra = json.loads(made[columns.EXTRA])
    del extra["attributes"]["slow"]
    if not extra["attributes"]:
        del extra["attributes"]
    quick = parse(data)
    if not isinstance(quick, Rejection):
        assert json.loads(quick[columns.EXTRA] or "{}") == extra
        made[columns.EXTRA] = quick[columns.EXTRA]
    return made


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60) | st.binary(max_size=30).map(lambda b: raw()[:-1] + b + b"}"))
def test_whatever_the_bytes_nothing_raises(data):
    found = parse(data)
    assert not isinstance(found, Rejection) or found.code in CODES
    assert isinstance(PARSER.check(data, NOW), Checked | Rejection)


def test_the_same_bytes_give_the_same_row_for_ever():
    """Nothing is remembered between records, and no clock is read."""
    values = [value for _, value in REFUSED] + [raw(f"e{i}") for i in range(3)]
    first = [parse(v) for v in values]
    again = Parser(Settings({}))
    assert [again.row(v, 7, NOW, 3, DIGEST) for v in reversed(values)] == first[::-1]


def test_a_fingerprint_is_of_the_event_not_of_its_id():
    assert row("one")[columns.FINGERPRINT] == row("two")[columns.FINGERPRINT]


def test_fingerprints_are_those_of_earlier_releases():
    """Claims keep them for a day: with another digest, what a client sends again after an upgrade would be a conflict."""
    full = row(type="pay", item_id="漢", category_id="c", merchant_id="m", order_id="o", amount=5, quantity=3)
    assert (row()[columns.FINGERPRINT], full[columns.FINGERPRINT]) == ("91+JSNfR", "gIdU2VmF")
