"""Where a partition begins that nobody has committed an offset of: its earliest record, its end, or a moment.

Pure; the text is the setting `slice.start`.
"""

from __future__ import annotations

from datetime import datetime

EARLIEST, LATEST = "earliest", "latest"
EXPECTED = "earliest, latest, a time with its zone (2030-11-11T00:00:00+08:00), or ms since the epoch"
_YEAR_10000_MS = 253_402_300_800_000


def start_of(text: str) -> str | int:
    """`EARLIEST`, `LATEST`, or the moment (ms since the epoch) from which on records are read; raises `ValueError`."""
    if text in (EARLIEST, LATEST):
        return text
    at = int(text) if text.isascii() and text.isdigit() else _moment(text)
    if not 0 <= at < _YEAR_10000_MS:
        raise ValueError(f"expected {EXPECTED}")
    return at


def _moment(text: str) -> int:
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"expected {EXPECTED}")
    return round(at.timestamp() * 1000)
