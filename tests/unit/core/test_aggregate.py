"""Aggregate: sums that do not depend on how the rows were cut, exact money, late events apart."""

from __future__ import annotations

import itertools
import json

from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from unit.core.making import DIGEST, NOW, PARSER, event, pay, row

from clicktide import aggregate
from clicktide.aggregate import buckets, effects, is_late
from clicktide.member import members, rows_of
from clicktide.row import COLUMNS, EXTRA, GENDERS, OFFSET, PROVINCE, SHARD, TYPES

WEEK_MS = 7 * 86_400_000
MINUTE = NOW // 1000


def made(fields):
    found = PARSER.row(json.dumps(fields).encode(), 0, NOW, 0, DIGEST)
    assert isinstance(found, list), found
    return found


def total(parts):
    """The buckets of several effects, added up."""
    out: dict = {}
    for part in parts:
        for granularity, starts in buckets(part).items():
            for start, counts in starts.items():
                into = out.setdefault((granularity, start), {})
                for name, n in counts.items():
                    into[name] = into.get(name, 0) + n
    return out


def test_one_pay_in_every_bucket():
    found = effects(
        [row("e", **_only(pay("e", 1999, gender="female", category_id="c1", province="浙江")))], WEEK_MS
    )
    second = (NOW - 1000) // 1000
    minute, hour, day = second // 60 * 60, second // 3600 * 3600, second // 86400 * 86400
    common = {"n:pay": 1, "g:female": 1, "gmv": 1999}
    coarse = {**common, "c:c1": 1999, "p:浙江": 1}
    assert buckets(found) == {
        "s": {second: common},
        "m": {minute: coarse},
        "h": {hour: coarse},
        "d": {day: coarse},
        "a": {0: coarse},
    }
    assert found.visitors == {hour: {"u1"}}
    assert found.payers == {hour: {"u1"}}
    assert found.late == 0


def _only(fields):
    return {k: v for k, v in fields.items() if k != "event_id"}


def test_what_is_unknown_has_an_empty_name():
    coarse = buckets(effects([row("e", **_only(pay("e", 5)))], WEEK_MS))["a"][0]
    assert (coarse["c:"], coarse["p:"], coarse["g:unknown"]) == (5, 1, 1)


def test_refunds_are_not_gmv():
    coarse = buckets(effects([row("e", type="refund", order_id="o", amount=7, category_id="c")], WEEK_MS))[
        "a"
    ][0]
    assert coarse == {"n:refund": 1, "g:unknown": 1, "p:": 1, "refunds": 7}


def test_an_order_has_no_money_yet():
    coarse = buckets(effects([row("e", type="order", order_id="o", amount=7)], WEEK_MS))["a"][0]
    assert coarse == {"n:order": 1, "g:unknown": 1, "p:": 1}


def test_late_events_are_in_the_timeline_and_counted_as_late_alone():
    edge = row("edge", occurred_at=NOW - WEEK_MS)
    late = row("late", occurred_at=NOW - WEEK_MS - 1, type="pay", order_id="o", amount=5)
    assert (is_late(edge, WEEK_MS), is_late(late, WEEK_MS)) == (False, True)
    found = effects([edge, late], WEEK_MS)
    assert found.late == 1
    assert buckets(found)["a"][0] == {"n:view": 1, "g:unknown": 1, "p:": 1, "late": 1}
    assert len(found.timelines["u1"]) == 4
    assert found.payers == {}


def test_only_late_events():
    assert buckets(effects([row("late", occurred_at=0)], WEEK_MS)) == {
        "s": {},
        "m": {},
        "h": {},
        "d": {},
        "a": {0: {"late": 1}},
    }


def test_money_beyond_what_a_double_holds():
    amount = 10**12 - 1
    count = 20_000
    found = effects([row("e", **_only(pay("e", amount)))] * count, WEEK_MS)
    assert buckets(found)["a"][0]["gmv"] == amount * count > 2**53


def test_a_timeline_member_is_of_the_rows_first_columns():
    one = row("e", page="/p", offset=7)
    score, member = effects([one], WEEK_MS).timelines["u1"]
    assert score == str(NOW - 1000)
    (back,) = rows_of([member])
    assert back == [*one[:SHARD], None, *one[SHARD + 1 : EXTRA + 1]]
    assert COLUMNS[EXTRA] == "extra"
    assert OFFSET > EXTRA, (
        "a member does not tell where its record lay, so a second copy of it would be the same"
    )
    assert one[PROVINCE] is None


def test_no_rows_no_effects():
    assert effects([], WEEK_MS) == aggregate.Effects()


events = st.builds(
    lambda i, kind, user, ago, amount, gender, category, province: {
        **event(f"e{i}", type=kind, user_id=user, occurred_at=NOW - ago, gender=gender),
        **({"order_id": "o", "amount": amount} if kind in ("order", "pay", "refund") else {}),
        **({"category_id": category} if category else {}),
        **({"province": province} if province else {}),
    },
    st.integers(0, 10**6),
    st.sampled_from(TYPES),
    st.sampled_from(["u1", "u2", "u3"]),
    st.integers(0, 5000) | st.integers(0, 2 * WEEK_MS),
    st.integers(0, 10**12),
    st.sampled_from(GENDERS),
    st.sampled_from(["", "c1", "c2"]),
    st.sampled_from(["", "浙江"]),
)


@budget(max_examples=60, deadline=None)
@given(st.lists(events, max_size=20), st.lists(st.integers(0, 20)), st.randoms(use_true_random=False))
def test_any_cut_of_the_rows_sums_to_the_same(found, cuts, random):
    rows = [made(e) for e in found]
    whole = total([effects(rows, WEEK_MS)])
    random.shuffle(rows)
    at = sorted({0, len(rows), *(c for c in cuts if c < len(rows))})
    parts = [effects(rows[a:b], WEEK_MS) for a, b in itertools.pairwise(at)]
    assert total(parts) == whole

    counted = [r for r in rows if not is_late(r, WEEK_MS)]
    all_time = whole.get(("a", 0), {})
    assert sum(n for name, n in all_time.items() if name.startswith("n:")) == len(counted)
    assert sum(n for name, n in all_time.items() if name.startswith("p:")) == len(counted)
    assert all_time.get("late", 0) == len(rows) - len(counted)
    for granularity in "smhd":
        starts = [counts for (g, _), counts in whole.items() if g == granularity]
        assert sum(c.get("gmv", 0) for c in starts) == all_time.get("gmv", 0)
    assert sum(n for name, n in all_time.items() if name.startswith("c:")) == all_time.get("gmv", 0)


def one_by_one(rows):
    """The same as `effects`, each event for itself, from what docs/semantics.md says of it."""
    out = aggregate.Effects()
    for r in map(dict, (zip(COLUMNS, r, strict=True) for r in rows)):
        (member,) = members([list(r.values())])
        out.timelines.setdefault(r["user_id"], []).extend([str(r["occurred_at"]), member])
        if r["received_at"] - r["occurred_at"] > WEEK_MS:
            out.late += 1
            continue
        second = r["occurred_at"] // 1000
        minute, hour = second // 60 * 60, second // 3600 * 3600
        sums, coarse = out.seconds.setdefault(second, {}), out.minutes.setdefault(minute, {})
        adds = [
            (sums, f"n:{r['type']}", 1),
            (sums, f"g:{r['gender']}", 1),
            (coarse, f"p:{r['province'] or ''}", 1),
        ]
        out.visitors.setdefault(hour, set()).add(r["user_id"])
        if r["type"] == "pay":
            adds += [(sums, "gmv", r["amount"]), (coarse, f"c:{r['category_id'] or ''}", r["amount"])]
            out.payers.setdefault(hour, set()).add(r["user_id"])
        if r["type"] == "refund":
            adds.append((sums, "refunds", r["amount"]))
        for into, name, n in adds:
            into[name] = into.get(name, 0) + n
    return out


@budget(max_examples=100, deadline=None)
@given(st.lists(events, max_size=20))
def test_together_is_as_one_by_one(found):
    rows = [made(e) for e in found]
    assert effects(rows, WEEK_MS) == one_by_one(rows)


def test_a_province_that_is_empty_is_one_that_is_not_known():
    both = [row("a"), row("b", province="")]
    assert effects(both, WEEK_MS).minutes[(NOW - 1000) // 60_000 * 60] == {"p:": 2}
