"""Where a partition begins: the setting's forms, and what is none."""

import pytest

from clicktide.errors import SettingError
from clicktide.settings import Settings
from clicktide.start import start_of
from spouts.slices import KafkaSpout, RetrySpout


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("earliest", "earliest"),
        ("latest", "latest"),
        ("0", 0),
        ("1896969600123", 1_896_969_600_123),
        ("2030-02-10T16:00:00Z", 1_896_969_600_000),
        ("2030-02-11T00:00:00.123+08:00", 1_896_969_600_123),
    ],
)
def test_forms(text, start):
    assert start_of(text) == start
    assert Settings({"slice.start": text}).text("slice.start") == text


@pytest.mark.parametrize("text", ["", "newest", "2030-02-10T16:00:00", "-1", "1e3", "99999999999999999999"])
def test_what_is_no_start_is_refused(text):
    with pytest.raises(SettingError, match=r"slice\.start: expected earliest, latest, a time with its zone"):
        Settings({"slice.start": text})


def test_retry_topics_are_always_read_from_their_beginning():
    for kind, start in ((KafkaSpout, "latest"), (RetrySpout, "earliest")):
        spout = kind.__new__(kind)
        spout.settings = Settings({"slice.start": "latest"})
        assert spout.start() == start
