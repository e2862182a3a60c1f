"""The made-up shop: who its users are and what its items belong to. Pure functions of small numbers.

Each user keeps gender, age range, province and channel, each item category, merchant, brand and price, over all
runs and seeds, as in a real shop.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import orjson

from bench.replay import price

PROVINCES = (
    "广东", "浙江", "江苏", "山东", "河南", "四川", "北京市", "上海市", "湖北", "福建", "湖南", "河北",
    "安徽", "辽宁", "陕西", "江西", "重庆市", "广西", "云南", "山西", "黑龙江", "天津市", "贵州", "吉林",
    "内蒙古", "新疆", "甘肃", "海南", "宁夏", "青海", "西藏", "香港", "台湾", "澳门",
)  # fmt: skip
_GENDERS = ("female",) * 52 + ("male",) * 40 + ("unknown",) * 8
_CHANNELS = ("app",) * 7 + ("web",) * 2 + ("mini",)
CATEGORIES = 60


class Person(NamedTuple):
    """A user; `tail` is the JSON of what all their events share, to be put at the end of an event."""

    user_id: str
    tail: bytes


class Item(NamedTuple):
    """An item; `part` is the JSON of its ids, to be put inside an event; `price` in minor units."""

    item_id: str
    part: bytes
    price: int


def person(n: int) -> Person:
    """The n-th user."""
    h = _mixed(n)
    fields = {
        "gender": _GENDERS[h % 100],
        "province": PROVINCES[(h >> 8) % 34 * ((h >> 16) % 34) // 34],  # the first ones are the big ones
        "channel": _CHANNELS[(h >> 24) % 10],
        "device_id": f"d{h:08x}",
    }
    age = (h >> 20) % 9
    if age:
        fields["age_range"] = str(age)
    return Person(f"u{n}", b"," + orjson.dumps(fields)[1:])


def item(n: int) -> Item:
    """The n-th item."""
    h = _mixed(n + 1_000_003)
    item_id = f"i{n}"
    fields = {
        "item_id": item_id,
        "category_id": f"c{h % CATEGORIES}",
        "merchant_id": f"m{(h >> 8) % 400}",
        "brand_id": f"b{(h >> 16) % 250}",
    }
    return Item(item_id, orjson.dumps(fields)[1:-1], price(item_id))


def zipf_weights(n: int, exponent: float) -> list[float]:
    """Cumulative weights of ranks 1..n, each weighing rank^-exponent (Zipf's law)."""
    return list(itertools.accumulate(rank**-exponent for rank in range(1, n + 1)))


def _mixed(n: int) -> int:
    """32 well-mixed bits of n (the finaliser of murmur3)."""
    n &= 0xFFFFFFFF
    n = ((n ^ (n >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    n = ((n ^ (n >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return n ^ (n >> 16)
