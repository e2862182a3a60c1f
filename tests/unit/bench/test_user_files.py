"""Reading user_log.csv and UserBehavior.csv: formats, encodings, numbering, and any bytes at all."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench import user_files
from bench.user_files import MAX_LINE, USER_BEHAVIOR, USER_LOG, FileError, Problem, Row

LINE = "328862,406349,1280,2700,5476,11,11,0,0,1,四川"
HEADER = "user_id,item_id,cat_id,merchant_id,brand_id,month,day,action,age_range,gender,province"


def read(path, content: bytes):
    path.write_bytes(content)
    source = user_files.inspect(path)
    return source, list(user_files.rows(source))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "f.csv"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
@pytest.mark.parametrize("header", [True, False])
def test_all_ways_to_write_the_same_rows(file, end, encoding, header):
    lines = [HEADER] * header + [LINE, "", LINE]
    source, found = read(file, end.join(lines).encode(encoding))
    first = 1 + header
    assert source.format == USER_LOG
    assert source.encoding == ("gb18030" if encoding == "gb18030" else "utf-8")
    assert found == [
        Row(first, LINE.split(",")),
        Problem(first + 1, "blank"),
        Row(first + 2, LINE.split(",")),
    ]


def test_user_behavior_is_told_by_its_fourth_column(file):
    source, found = read(file, b"1,2268318,2520377,pv,1511544070\n1,2333346,2520771,buy,1511561733\n")
    assert source.format == USER_BEHAVIOR
    assert [row.fields[3] for row in found] == ["pv", "buy"]


def test_short_and_long_rows_are_reported_with_their_number(file):
    _, found = read(file, f"{LINE}\n1,2,3\n{LINE},more\n".encode())
    assert found[1:] == [
        Problem(2, "3 columns, expected 11"),
        Problem(3, "12 columns, expected 11"),
    ]


def test_a_header_in_another_order_is_followed(file):
    names = HEADER.split(",")
    row = LINE.split(",")
    swapped = [*names[1:], names[0]], [*row[1:], row[0]]
    _, found = read(file, "\n".join(",".join(line) for line in swapped).encode())
    assert found == [Row(2, row)]


def test_a_header_that_lacks_a_column_is_named(file):
    with pytest.raises(FileError, match="line 1: the header lacks action"):
        read(file, (HEADER.replace(",action", "") + "\n").encode())


def test_a_header_of_user_behavior(file):
    source, found = read(file, b"user_id,item_id,category_id,behavior,timestamp\n1,2,3,fav,4\n")
    assert (source.format, found) == (USER_BEHAVIOR, [Row(2, ["1", "2", "3", "fav", "4"])])


@pytest.mark.parametrize("content", [b"", b"\n\n", b"a,b\n", b"1,2,3,nothing,5\n", b"\x00" * 100])
def test_other_files_are_refused_in_one_line(file, content):
    with pytest.raises(FileError, match=r"f\.csv is neither user_log\.csv") as caught:
        read(file, content)
    assert "\n" not in str(caught.value)


def test_utf16_is_refused_by_name(file):
    with pytest.raises(FileError, match="UTF-16"):
        read(file, LINE.encode("utf-16"))


def test_a_file_that_is_not_there(file):
    with pytest.raises(FileError, match="No such file"):
        user_files.inspect(file)


def test_one_undecodable_row_does_not_turn_the_file_into_gb18030(file):
    source, found = read(file, LINE.encode() + b"\n1,2,3,4,5,11,11,0,0,1,\xff\xff\n" + LINE.encode())
    assert source.encoding == "utf-8"
    assert found[1] == Problem(2, "not valid UTF-8")
    assert found[2] == Row(3, LINE.split(","))


def test_a_line_without_end_does_not_fill_the_memory(file):
    content = LINE.encode() + b"\n" + b"x" * (3 * MAX_LINE) + b"\n" + LINE.encode() + b"\n"
    _, found = read(file, content)
    assert found[1] == Problem(2, f"longer than {MAX_LINE} bytes")
    assert found[2] == Row(3, LINE.split(","))


def test_quotes(file):
    quoted = ",".join(f'"{field}"' for field in LINE.split(","))
    _, found = read(file, f'{LINE}\n{quoted}\n"1,2\n'.encode())
    assert found[1] == Row(2, LINE.split(","))
    assert isinstance(found[2], Problem)


def test_the_digest_is_of_every_byte(file):
    first, _ = read(file, (LINE + "\n").encode())
    again, _ = read(file, (LINE + "\n").encode())
    other, _ = read(file, (LINE + "\r\n").encode())
    assert first.digest == again.digest != other.digest


_bytes = st.one_of(
    st.binary(max_size=60).map(lambda b: b.replace(b"\n", b"")),
    st.just(LINE.encode()),
    st.just(LINE.encode("gb18030")),
    st.text(alphabet=',"\r 1\x00山', max_size=30).map(lambda t: t.encode()),
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_bytes, max_size=12), st.sampled_from([b"\n", b"\r\n"]), st.booleans())
def test_any_bytes_give_rows_or_problems_with_the_right_numbers(tmp_path, lines, end, headed):
    lines = [HEADER.encode()] * headed + lines
    content = end.join(lines)
    try:
        source, found = read(tmp_path / "any.csv", content)
    except FileError:
        return
    count = content.count(b"\n") + bool(content) - content.endswith(b"\n")
    expected = [n for n in range(1, count + 1) if n != source.header]
    assert [item.number for item in found] == expected
    for item in found:
        if isinstance(item, Row):
            raw = content.split(b"\n")[item.number - 1].removeprefix(b"\xef\xbb\xbf")
            if b'"' not in raw:
                text = raw.rstrip(b"\r\n").decode(source.encoding)
                assert item.fields == [part.strip() for part in text.split(",")]
