"""Ids as keyed hashes, where a key is set."""

from __future__ import annotations

import json

from unit.core.making import DIGEST, NOW, PARSER, raw, row

from clicktide.parse import Parser
from clicktide.pseudonym import pseudonym_of, stored_id
from clicktide.row import EXTRA, SHARD, USER_ID
from clicktide.settings import Settings
from clicktide.shards import shard_of

KEYED = Settings({"ids.pseudonym_key": "k" * 32})


def test_without_a_key_ids_are_as_they_came():
    assert pseudonym_of(Settings({})) is None
    assert stored_id(Settings({}), "u1") == "u1"
    assert row("e")[USER_ID] == "u1"


def test_ids_of_persons_are_hashed_and_nothing_else():
    value = raw("e", device_id="d", anonymous_id="a", session_id="s", item_id="i")
    made, plain = Parser(KEYED).row(value, 0, NOW, 0, DIGEST), PARSER.row(value, 0, NOW, 0, DIGEST)
    hashed = stored_id(KEYED, "u1")
    assert (made[USER_ID], len(hashed)) == (hashed, 64)
    assert made[SHARD] == shard_of(hashed, 64)
    extra = json.loads(made[EXTRA])
    assert extra == {
        **json.loads(plain[EXTRA]),
        "device_id": stored_id(KEYED, "d"),
        "anonymous_id": stored_id(KEYED, "a"),
    }
    assert stored_id(Settings({"ids.pseudonym_key": "other"}), "u1") != hashed


def test_a_number_and_its_text_are_one_person():
    numbered = Parser(KEYED).row(raw("e", user_id=7), 0, NOW, 0, DIGEST)
    assert numbered[USER_ID] == stored_id(KEYED, "7")
