"""Reads user_log.csv and UserBehavior.csv as numbered rows, in bounded memory.

Any bytes at all give rows or problems, each with the number of its line (1 is the first line of the file, header
and blank lines count); a file of neither format raises `FileError` with one line that says why.
"""

from __future__ import annotations

import base64
import csv
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from clicktide.errors import ClicktideError

MAX_LINE = 64 * 1024  # bytes; a longer line is no row of these files, and must not fill the memory
_BLOCK = 1 << 20
_PROBED_BLOCKS = 32  # blocks with non-ASCII bytes that decide on the encoding
_PROBED_ROWS = 100  # rows that decide on the format

USER_LOG = "user_log.csv"
USER_BEHAVIOR = "UserBehavior.csv"
COLUMNS: dict[str, tuple[str, ...]] = {
    USER_LOG: (
        "user_id",
        "item_id",
        "cat_id",
        "merchant_id",
        "brand_id",
        "month",
        "day",
        "action",
        "age_range",
        "gender",
        "province",
    ),
    USER_BEHAVIOR: ("user_id", "item_id", "category_id", "behavior", "timestamp"),
}
BEHAVIORS = ("pv", "buy", "cart", "fav")
_HEADER_NAMES = {"category_id": "cat_id", "seller_id": "merchant_id", "action_type": "action"}


class FileError(ClicktideError):
    """The file cannot be read, or is of neither format."""

    code = "bad_file"


class Row(NamedTuple):
    """One row: its line number and its fields in the order of COLUMNS[format]."""

    number: int
    fields: list[str]


class Problem(NamedTuple):
    """A line that is not a row, and why."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class Source:
    """A file that was looked through once: what it is and how to read it."""

    path: Path
    size: int  # bytes
    lines: int
    digest: bytes  # blake2b, 16 bytes, of the whole content
    encoding: str  # utf-8 or gb18030
    format: str  # a key of COLUMNS
    order: tuple[int, ...] | None  # positions of COLUMNS[format] in a line, where a header says another order
    header: int  # line number of the header, 0 where there is none


def inspect(path: Path, on_bytes: Callable[[int], None] = lambda _: None) -> Source:
    """Look through the whole file once; `on_bytes` is told how many bytes each step read."""
    try:
        with path.open("rb") as f:
            digest, size, lines, encoding = _survey(f, on_bytes)
            f.seek(0)
            layout, order, header = _recognise(path, f, encoding)
    except OSError as e:
        raise FileError(f"cannot read {path}: {e.strerror or e}") from e
    return Source(path, size, lines, digest, encoding, layout, order, header)


def rows(source: Source) -> Iterator[Row | Problem]:
    """Every line but the header, as a row or as a problem, in order."""
    width = len(COLUMNS[source.format])
    try:
        with source.path.open("rb") as f:
            for number, line in _lines(f):
                if number == source.header:
                    continue
                fields = _fields(line, source.encoding)
                if isinstance(fields, str):
                    yield Problem(number, fields)
                elif source.order is not None and len(fields) > max(source.order):
                    yield Row(number, [fields[i] for i in source.order])
                elif len(fields) != width:
                    yield Problem(number, f"{len(fields)} columns, expected {width}")
                else:
                    yield Row(number, fields)
    except OSError as e:
        raise FileError(f"cannot read {source.path}: {e.strerror or e}") from e


def short_digest(*parts: bytes) -> str:
    """55 bits of the parts as 11 characters a-z 2-7."""
    digest = hashlib.blake2b(b"\0".join(parts), digest_size=7).digest()
    return base64.b32encode(digest).decode()[:11].lower()


def _survey(f: BinaryIO, on_bytes: Callable[[int], None]) -> tuple[bytes, int, int, str]:
    """Digest, size, lines, and the encoding that spoils fewer lines of the first blocks with non-ASCII bytes."""
    hasher, size, lines, probed = hashlib.blake2b(digest_size=16), 0, 0, 0
    bad = {"utf-8": 0, "gb18030": 0}
    rest = b""
    while block := f.read(_BLOCK):
        if size == 0 and block[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise FileError(f"{Path(f.name).name} is UTF-16: expected UTF-8 or GB18030")
        hasher.update(block)
        size += len(block)
        lines += block.count(b"\n")
        on_bytes(len(block))
        if probed < _PROBED_BLOCKS and not block.isascii():
            probed += 1
            cut = block.rfind(b"\n") + 1
            whole, rest = rest + block[:cut], block[cut:]
            for encoding in bad:
                bad[encoding] += _undecodable(whole, encoding)
        else:
            rest = b""
    for encoding in bad:
        bad[encoding] += _undecodable(rest, encoding)
    return hasher.digest(), size, lines, "gb18030" if bad["gb18030"] < bad["utf-8"] else "utf-8"


def _undecodable(block: bytes, encoding: str) -> int:
    """How many lines of `block` are not of this encoding."""
    if _decodes(block, encoding):
        return 0
    return sum(not _decodes(line, encoding) for line in block.split(b"\n"))


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _recognise(path: Path, f: BinaryIO, encoding: str) -> tuple[str, tuple[int, ...] | None, int]:
    """(format, order, line of the header): from a header, else from the first line that fits."""
    first: tuple[int, int] | None = None
    for tried, (number, line) in enumerate(_lines(f)):
        if tried == _PROBED_ROWS:
            break
        fields = _fields(line, encoding)
        if isinstance(fields, str):
            continue
        if first is None:
            first = (number, len(fields))
            names = [_HEADER_NAMES.get(name.lower(), name.lower()) for name in fields]
            if "user_id" in names:
                return _from_header(path, names, number)
        if len(fields) == len(COLUMNS[USER_LOG]):
            return USER_LOG, None, 0
        if len(fields) == len(COLUMNS[USER_BEHAVIOR]) and fields[3].lower() in BEHAVIORS:
            return USER_BEHAVIOR, None, 0
    found = f"line {first[0]} has {first[1]} columns" if first else "no row found"
    raise FileError(
        f"{path.name} is neither user_log.csv (11 columns) nor UserBehavior.csv "
        f"(5 columns, the 4th pv, buy, cart or fav): {found}"
    )


def _from_header(path: Path, names: list[str], number: int) -> tuple[str, tuple[int, ...] | None, int]:
    for layout, columns in COLUMNS.items():
        wanted = [_HEADER_NAMES.get(c, c) for c in columns]
        if layout == USER_BEHAVIOR and not {"behavior", "timestamp"} & set(names):
            continue
        if names == wanted:
            return layout, None, number
        missing = [c for c in wanted if c not in names]
        if not missing:
            return layout, tuple(names.index(c) for c in wanted), number
        if layout == USER_BEHAVIOR or len(missing) <= len(wanted) // 2:
            raise FileError(f"{path.name} line {number}: the header lacks {', '.join(missing)}")
    raise FileError(f"{path.name} line {number}: expected the header {','.join(COLUMNS[USER_LOG])}")


def _lines(f: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """(line number, line without its end); None for a line longer than MAX_LINE, of which no more is read."""
    number = 0
    while line := f.readline(MAX_LINE):
        number += 1
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.endswith(b"\n") or len(line) < MAX_LINE - 3:
            yield number, line.rstrip(b"\r\n")
            continue
        while line and not line.endswith(b"\n"):
            line = f.readline(MAX_LINE)
        yield number, None


def _fields(line: bytes | None, encoding: str) -> list[str] | str:
    """The line's fields without blanks around them, or what is wrong with it."""
    if line is None:
        return f"longer than {MAX_LINE} bytes"
    try:
        text = line.decode(encoding)
    except UnicodeDecodeError:
        return f"not valid {encoding.upper()}"
    if not text.strip():
        return "blank"
    if '"' not in text:
        return [field.strip() for field in text.split(",")]
    try:
        return [field.strip() for field in next(csv.reader([text], skipinitialspace=True))]
    except (csv.Error, StopIteration):
        return "quotes that do not match"
