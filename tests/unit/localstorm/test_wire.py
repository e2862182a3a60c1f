"""Framing and commands, as pystorm writes them and as others might."""

import json

import msgspec
import pytest
import simplejson
from hypothesis import given, settings
from hypothesis import strategies as st

from localstorm import wire
from localstorm.errors import ProtocolError

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(['], "anchors": ["', '"id": ', '"need_task_ids": false}', "end", "\nend\n"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=5) | st.sampled_from(["anchors", "id", "stream", "task", "need_task_ids"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=20,
)

# Little time, and none measured: other tests run beside this one.
few = settings(max_examples=40, deadline=None)


PYSTORMS_ORDER = ("anchors", "id", "stream", "task", "need_task_ids")


def compact(message):
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()


def pystorms(message):
    return simplejson.dumps(message, namedtuple_as_object=False).encode()


@few
@given(messages=st.lists(st.dictionaries(st.text(), values, max_size=3), max_size=6), data=st.data())
def test_messages_come_whole_however_the_pipe_cuts_them(messages, data):
    stream = b"".join(pystorms(message) + b"\nend\n" for message in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    framer, got = wire.Framer(), []
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += framer.feed(stream[start:stop])
    assert [json.loads(message) for message in got] == messages
    assert framer.rest() == b""


def test_a_message_of_several_lines_is_one_message():
    framer = wire.Framer()
    assert framer.feed(b'{\n"command": "ack",\n"id": "4"}\nend\n{"comm') == [
        b'{\n"command": "ack",\n"id": "4"}'
    ]
    assert framer.rest() == b'{"comm'


@few
@pytest.mark.parametrize("write", [compact, pystorms])
@given(
    body=st.lists(values, max_size=4),
    envelope=st.fixed_dictionaries(
        {},
        optional={
            "anchors": st.lists(st.text("0123456789", min_size=1), max_size=4),
            "id": values.filter(lambda value: value is not None),
            "stream": st.text(),
            "task": st.integers(1, 99),
            "need_task_ids": st.booleans(),
        },
    ),
)
def test_a_cut_emit_is_what_a_parser_reads(write, body, envelope):
    in_order = {key: envelope[key] for key in PYSTORMS_ORDER if key in envelope}
    message = write({"command": "emit", "tuple": body, **in_order})
    parsed = wire.decode(message, foreign=True)
    cut = wire.cut_emit(message)
    if cut is None:
        return  # left to the parser, which is always right
    assert json.loads(bytes(cut.tuple)) == json.loads(bytes(parsed.tuple)) == body
    assert bytes(cut.id) == bytes(parsed.id)
    assert (cut.stream, cut.task, cut.anchors, cut.need_task_ids) == (
        parsed.stream,
        parsed.task,
        parsed.anchors,
        parsed.need_task_ids,
    )


@pytest.mark.parametrize("write", [compact, pystorms])
@pytest.mark.parametrize("envelope", [{"anchors": ["12"]}, {"id": "a:1"}, {"id": [1, 2]}, {"stream": "s"}])
def test_large_emits_of_pystorm_are_cut_and_not_parsed(write, envelope):
    body = [["e" * 16, 1, {"anchors": ["9"], "id": 3}]] * 400
    message = write({"command": "emit", "tuple": body, **envelope, "need_task_ids": False})
    assert len(message) > wire.LARGE
    cut = wire.cut_emit(message)
    assert cut is not None
    assert json.loads(bytes(cut.tuple)) == body


def test_nan_is_refused_as_storm_refuses_it():
    with pytest.raises(ProtocolError, match="no multilang command"):
        wire.decode(json.dumps({"command": "emit", "tuple": [float("nan")]}).encode())


def test_prints_are_named_for_what_they_are():
    with pytest.raises(ProtocolError, match=r"print\(\) while the module is imported.*hello"):
        wire.decode_pid(b'hello\n{"pid": 3}')


@pytest.mark.parametrize("message", [b'{"command": "dance"}', b"[]", b'{"command": "ack"}', b"", b"null"])
def test_what_is_no_command_is_refused(message):
    with pytest.raises(ProtocolError):
        wire.decode(message)


def test_a_tuple_message_is_what_pystorm_expects():
    raw = b'[1,\n"a"]'
    message = b'{"id":"%d%b%b%b' % (5, wire.tuple_middle('a "b"', "s", 3), raw, wire.TAIL)
    assert message.endswith(b"\nend\n")
    assert json.loads(message[:-4]) == {
        "id": "5",
        "comp": 'a "b"',
        "stream": "s",
        "task": 3,
        "tuple": [1, "a"],
    }


def test_outcomes_give_the_message_id_back_as_it_was():
    for raw in (b'"a"', b"17", b'{"p": [1,\n2]}'):
        message = json.loads(wire.outcome("fail", raw).split(b"\nend")[0])
        assert message == {"command": "fail", "id": msgspec.json.decode(raw)}
