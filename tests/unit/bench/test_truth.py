"""The truth file: what is written is read back, byte for byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import truth
from bench.truth import Record, TruthError, TruthWriter

EVENT = b'{"event_id":"a-1","user_id":"u"}'


def test_an_event_is_kept_as_it_was_sent():
    line = truth.encode_line(Record("good", "u", EVENT, 12))
    assert line == b'{"kind":"good","event":' + EVENT + b',"raw":null,"at":12}\n'
    assert truth.decode_line(line) == ("good", {"event_id": "a-1", "user_id": "u"}, None, 12, False)


@given(st.binary(max_size=80))
def test_malformed_bytes_come_back_verbatim(raw):
    line = truth.encode_line(Record("malformed", "u", raw, 5))
    assert line.count(b"\n") == 1
    assert truth.decode_line(line).raw == raw


def test_unknown_is_marked():
    assert truth.decode_line(truth.encode_line(Record("late", "u", EVENT, 1), unknown=True)).unknown


def test_a_torn_last_line_is_ignored_and_a_bad_one_is_named(tmp_path):
    path = tmp_path / "t.jsonl"
    writer = TruthWriter(path)
    writer.write([Record("good", "u", EVENT, 1)] * 2)
    writer.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    assert len(list(truth.read(path))) == 1
    path.write_bytes(whole + b"{}\n" + whole)
    with pytest.raises(TruthError, match=r"t\.jsonl line 3: not a truth record"):
        list(truth.read(path))


@pytest.mark.parametrize(
    "line",
    [
        b"1\n",
        b'{"kind":"x"}\n',
        b'{"kind":"good","event":null,"at":1}\n',
        b'{"kind":"malformed"}\n',
        b"\xff\n",
    ],
)
def test_lines_of_another_shape_are_refused(line):
    with pytest.raises(ValueError):
        truth.decode_line(line)


def test_a_file_that_cannot_be_had(tmp_path):
    with pytest.raises(TruthError, match="cannot read the truth file"):
        list(truth.read(tmp_path / "none"))
    with pytest.raises(TruthError, match="cannot write the truth file"):
        TruthWriter(tmp_path)
